// cosign-sign REFERENCE KEY KIND [NAME=VALUE...]: sign an image with a key as `cosign sign` does, with its libraries.
//
// REFERENCE is HOST[:PORT]/REPOSITORY@DIGEST, KEY a private key in PEM (PKCS #8, not encrypted), and KIND where the
// signature goes: `tag` (sha256-….sig, as by default until cosign 3), `referrer` (the same as a referrer of the
// image), or `bundle` (a Sigstore bundle as a referrer, the default of cosign 3). NAME=VALUE are annotations that are
// signed, too; a bundle has none. User and password are taken from the environment, as COSIGN_USERNAME and
// COSIGN_PASSWORD; SSL_CERT_FILE names the authority to trust. Nothing is sent to a transparency log. With Ed25519 it
// signs the hash (Ed25519ph) as cosign does since 2.0, or with COSIGN_PURE_ED25519=1 the text, as before.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v2/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/cosign/v2/pkg/types"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
)

func load(path string) (signature.SignerVerifier, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, errors.New("the key is not in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if os.Getenv("COSIGN_PURE_ED25519") != "" {
		return signature.LoadDefaultSignerVerifier(key)
	}
	return signature.LoadDefaultSignerVerifier(key, options.WithED25519ph())
}

func sign(reference, path, kind string, words []string) error {
	image, err := name.NewDigest(reference)
	if err != nil {
		return err
	}
	key, err := load(path)
	if err != nil {
		return err
	}
	at := ociremote.WithRemoteOptions(remote.WithAuth(&authn.Basic{
		Username: os.Getenv("COSIGN_USERNAME"),
		Password: os.Getenv("COSIGN_PASSWORD"),
	}))
	if kind == "bundle" {
		return signBundle(image, key, at)
	}
	annotations := map[string]any{}
	for _, word := range words {
		field, value, _ := strings.Cut(word, "=")
		annotations[field] = value
	}
	content, err := payload.Cosign{Image: image, Annotations: annotations}.MarshalJSON()
	if err != nil {
		return err
	}
	signed, err := key.SignMessage(bytes.NewReader(content))
	if err != nil {
		return err
	}
	made, err := static.NewSignature(content, base64.StdEncoding.EncodeToString(signed))
	if err != nil {
		return err
	}
	entity, err := ociremote.SignedEntity(image, at)
	if err != nil {
		return err
	}
	entity, err = mutate.AttachSignatureToEntity(entity, made)
	if err != nil {
		return err
	}
	switch kind {
	case "tag":
		return ociremote.WriteSignatures(image.Repository, entity, at)
	case "referrer":
		return ociremote.WriteSignaturesExperimentalOCI(image, entity, at)
	}
	return fmt.Errorf("%s is no kind of signature", kind)
}

// signBundle signs a statement about the digest.
func signBundle(image name.Digest, key signature.SignerVerifier, at ociremote.Option) error {
	algorithm, digest, _ := strings.Cut(image.DigestStr(), ":")
	content, err := protojson.Marshal(&intoto.Statement{
		Type:          intoto.StatementTypeUri,
		Subject:       []*intoto.ResourceDescriptor{{Digest: map[string]string{algorithm: digest}}},
		PredicateType: types.CosignSignPredicateType,
	})
	if err != nil {
		return err
	}
	envelope, err := dsse.WrapSigner(key, types.IntotoPayloadType).SignMessage(bytes.NewReader(content))
	if err != nil {
		return err
	}
	public, err := key.PublicKey()
	if err != nil {
		return err
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		return err
	}
	made, err := bundle.MakeNewBundle(public, nil, content, envelope, text, nil)
	if err != nil {
		return err
	}
	return ociremote.WriteAttestationNewBundleFormat(image, made, types.CosignSignPredicateType, at)
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: cosign-sign REFERENCE KEY tag|referrer|bundle [NAME=VALUE...]")
		os.Exit(2)
	}
	if err := sign(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "cosign-sign:", err)
		os.Exit(1)
	}
}
