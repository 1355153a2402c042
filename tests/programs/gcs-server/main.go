// gcs-server PORT DIRECTORY ACCOUNT KEY SECONDS: Google Cloud Storage on 127.0.0.1, with one bucket, `blobs`.
//
// The objects are the matter of fake-gcs-server, below DIRECTORY. It asks nobody who he is; this does: it hands out
// access tokens, good for SECONDS, at /token to whoever signs a request as ACCOUNT with the private half of the key in
// the file KEY (PEM), and at /computeMetadata as the metadata server of a machine does; it refuses requests without
// such a token or a signature of version 4 by that key. What else the real one does and that server does not is here,
// too: composing only where there is nothing yet, of objects that are there, and with deletion of these.
//
// POST /_fault?status=429&reason=rateLimitExceeded&count=2&method=POST makes the next requests of a method fail so;
// POST /_revoke ends all tokens; GET /_tokens says how many were handed out.
package main

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

const bucket = "blobs"

type server struct {
	objects http.Handler
	origin  string
	account string
	key     *rsa.PublicKey
	life    time.Duration

	mutex  sync.Mutex
	tokens map[string]time.Time
	issued int
	fault  struct {
		status, count  int
		method, reason string
	}
	composing sync.Mutex
}

// fail answers as the JSON API does: developers.google.com, "HTTP status and error codes for JSON".
func fail(w http.ResponseWriter, status int, reason, message string) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	detail := []any{map[string]any{"domain": "global", "reason": reason, "message": message}}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"error": map[string]any{"code": status, "message": message, "errors": detail},
	})
}

func (s *server) verify(text string, signature []byte) bool {
	hash := sha256.Sum256([]byte(text))
	return rsa.VerifyPKCS1v15(s.key, crypto.SHA256, hash[:], signature) == nil
}

// token answers a request for an access token as RFC 7523 has it.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(text string) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": text})
	}
	parts := strings.Split(r.FormValue("assertion"), ".")
	if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || len(parts) != 3 {
		refuse("Bad Request")
		return
	}
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	text, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Iss, Aud, Scope string
		Iat, Exp        int64
	}
	_ = json.Unmarshal(text, &claims)
	now := time.Now().Unix()
	switch {
	case claims.Iss != s.account:
		refuse("Invalid grant: account not found")
	case !s.verify(parts[0]+"."+parts[1], signature):
		refuse("Invalid JWT Signature.")
	case claims.Aud != s.origin+"/token" || claims.Exp < now || claims.Iat > now+60 || claims.Exp > claims.Iat+3600:
		refuse("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.")
	case claims.Scope != "https://www.googleapis.com/auth/devstorage.read_write":
		refuse("Invalid OAuth scope or ID token audience provided.")
	default:
		s.issue(w)
	}
}

func (s *server) metadata(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" {
		http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
		return
	}
	s.issue(w)
}

func (s *server) issue(w http.ResponseWriter) {
	secret := rand.Text()
	s.mutex.Lock()
	s.tokens[secret] = time.Now().Add(s.life)
	s.issued++
	s.mutex.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": secret, "expires_in": int(s.life.Seconds()), "token_type": "Bearer",
	})
}

// isSigned tells whether the signature of a URL is right for this request and not too old.
func (s *server) isSigned(r *http.Request) bool {
	query := r.URL.Query()
	signature, err := hex.DecodeString(query.Get("X-Goog-Signature"))
	signedAt, badTime := time.Parse("20060102T150405Z", query.Get("X-Goog-Date"))
	seconds, badNumber := strconv.Atoi(query.Get("X-Goog-Expires"))
	scope := signedAt.Format("20060102") + "/auto/storage/goog4_request"
	if err != nil || badTime != nil || badNumber != nil || seconds > 7*86400 ||
		time.Now().After(signedAt.Add(time.Duration(seconds)*time.Second)) ||
		query.Get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" || query.Get("X-Goog-SignedHeaders") != "host" ||
		query.Get("X-Goog-Credential") != s.account+"/"+scope {
		return false
	}
	query.Del("X-Goog-Signature")
	canonical := strings.Join([]string{
		r.Method, r.URL.EscapedPath(), strings.ReplaceAll(query.Encode(), "+", "%20"),
		"host:" + r.Host, "", "host", "UNSIGNED-PAYLOAD",
	}, "\n")
	hash := sha256.Sum256([]byte(canonical))
	text := "GOOG4-RSA-SHA256\n" + query.Get("X-Goog-Date") + "\n" + scope + "\n" + hex.EncodeToString(hash[:])
	return s.verify(text, signature)
}

func (s *server) hasToken(r *http.Request) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	end, known := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	return known && time.Now().Before(end)
}

// nextFault returns what this request is to be answered with, or 0.
func (s *server) nextFault(method string) (int, string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.fault.count == 0 || s.fault.method != method {
		return 0, ""
	}
	s.fault.count--
	return s.fault.status, s.fault.reason
}

// ask tells the status of a small request to the objects.
func (s *server) ask(method, name string) int {
	answer := httptest.NewRecorder()
	path := "/storage/v1/b/" + bucket + "/o/" + url.PathEscape(name)
	s.objects.ServeHTTP(answer, httptest.NewRequest(method, s.origin+path, nil))
	return answer.Code
}

func (s *server) compose(w http.ResponseWriter, r *http.Request, destination string) {
	s.composing.Lock()
	defer s.composing.Unlock()
	var asked struct {
		SourceObjects       []struct{ Name string }
		DeleteSourceObjects bool
	}
	content, _ := io.ReadAll(r.Body)
	if json.Unmarshal(content, &asked) != nil || len(asked.SourceObjects) == 0 {
		fail(w, http.StatusBadRequest, "required", "You must provide at least one source component.")
		return
	}
	for _, source := range asked.SourceObjects {
		if s.ask(http.MethodGet, source.Name) != http.StatusOK {
			fail(w, http.StatusNotFound, "notFound", "Object "+source.Name+" not found.")
			return
		}
	}
	if r.URL.Query().Get("ifGenerationMatch") == "0" && s.ask(http.MethodGet, destination) == http.StatusOK {
		fail(w, http.StatusPreconditionFailed, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	answer := httptest.NewRecorder()
	s.objects.ServeHTTP(answer, r)
	if answer.Code == http.StatusOK && asked.DeleteSourceObjects {
		for _, source := range asked.SourceObjects {
			s.ask(http.MethodDelete, source.Name)
		}
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	switch path {
	case "/_fault":
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.fault.status, _ = strconv.Atoi(r.FormValue("status"))
		s.fault.count, _ = strconv.Atoi(r.FormValue("count"))
		s.fault.method, s.fault.reason = r.FormValue("method"), r.FormValue("reason")
		return
	case "/_revoke":
		s.mutex.Lock()
		defer s.mutex.Unlock()
		clear(s.tokens)
		return
	case "/_tokens":
		s.mutex.Lock()
		defer s.mutex.Unlock()
		fmt.Fprint(w, s.issued)
		return
	case "/token":
		s.token(w, r)
		return
	case "/computeMetadata/v1/instance/service-accounts/default/token":
		s.metadata(w, r)
		return
	}
	isJSON := strings.HasPrefix(path, "/storage/v1/b/") || strings.HasPrefix(path, "/upload/storage/v1/b/")
	if status, reason := s.nextFault(r.Method); status != 0 {
		fail(w, status, reason, "a fault that a test wants")
		return
	}
	if isJSON && !s.hasToken(r) {
		fail(w, http.StatusUnauthorized, "authError", "Invalid Credentials")
		return
	}
	if !isJSON && !s.isSigned(r) {
		http.Error(w, "<Error><Code>SignatureDoesNotMatch</Code></Error>", http.StatusForbidden)
		return
	}
	place, name, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/upload"), "/storage/v1/b/"), "/")
	if isJSON && place != bucket {
		fail(w, http.StatusNotFound, "notFound", "The specified bucket does not exist.")
		return
	}
	// That server would read it with a lock on everything, and store what has broken off.
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	if destination, isComposing := strings.CutSuffix(name, "/compose"); isComposing && r.Method == http.MethodPost {
		destination, _ = url.PathUnescape(strings.TrimPrefix(destination, "o/"))
		s.compose(w, r, destination)
		return
	}
	s.objects.ServeHTTP(w, r)
}

func run(port, directory, account, keyFile, seconds string) error {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s is not PEM", keyFile)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	life, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return err
	}
	host := "127.0.0.1:" + port
	objects, err := fakestorage.NewServerWithOptions(fakestorage.Options{
		NoListener: true, StorageRoot: directory, PublicHost: host, ExternalURL: "http://" + host,
	})
	if err != nil {
		return err
	}
	objects.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: bucket})
	return http.ListenAndServe(host, &server{
		objects: objects.HTTPHandler(), origin: "http://" + host, account: account,
		key: key.(*rsa.PublicKey), life: life, tokens: map[string]time.Time{},
	})
}

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: gcs-server PORT DIRECTORY ACCOUNT KEY SECONDS")
	}
	log.Fatal(run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]))
}
