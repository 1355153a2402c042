// notation-sign REFERENCE KEY CHAIN FORMAT: sign an image as `notation sign` does, with its library.
//
// REFERENCE is HOST[:PORT]/REPOSITORY@DIGEST, or with a tag; KEY and CHAIN (leaf first) are files in PEM; FORMAT
// is jws or cose. User and password are taken from the environment, as NOTATION_USERNAME and NOTATION_PASSWORD;
// SSL_CERT_FILE names the authority to trust. NOTATION_EXPIRY, such as 1h, is the age that the signature may reach.
// The signature is pushed as a referrer of the image, whose digest is printed.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

var formats = map[string]string{"jws": "application/jose+json", "cose": "application/cose"}

func sign(reference, key, chain, format string) error {
	mediaType, known := formats[format]
	if !known {
		return fmt.Errorf("%s is neither jws nor cose", format)
	}
	repository, err := remote.NewRepository(reference)
	if err != nil {
		return err
	}
	repository.Client = &auth.Client{
		Credential: auth.StaticCredential(repository.Reference.Registry, auth.Credential{
			Username: os.Getenv("NOTATION_USERNAME"),
			Password: os.Getenv("NOTATION_PASSWORD"),
		}),
	}
	by, err := signer.NewFromFiles(key, chain)
	if err != nil {
		return err
	}
	options := notation.SignOptions{ArtifactReference: reference}
	options.SignatureMediaType = mediaType
	if age := os.Getenv("NOTATION_EXPIRY"); age != "" {
		if options.ExpiryDuration, err = time.ParseDuration(age); err != nil {
			return err
		}
	}
	signed, err := notation.Sign(context.Background(), by, registry.NewRepository(repository), options)
	if err == nil {
		fmt.Println(signed.Digest)
	}
	return err
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: notation-sign REFERENCE KEY CHAIN FORMAT")
		os.Exit(2)
	}
	if err := sign(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "notation-sign:", err)
		os.Exit(1)
	}
}
