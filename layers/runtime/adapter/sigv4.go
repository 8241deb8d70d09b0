package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sort"
	"strings"
	"time"
)

// sign signs a request to AWS without a query string, by Signature Version 4:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func sign(request *http.Request, body []byte, keys credentials, region, service string, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	digest := sha256Hex(body)
	request.Header.Set("X-Amz-Date", stamp)
	if service == "s3" {
		request.Header.Set("X-Amz-Content-Sha256", digest)
	}
	if keys.Token != "" {
		request.Header.Set("X-Amz-Security-Token", keys.Token)
	}
	names, headers := canonicalHeaders(request)
	path := request.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	canonical := strings.Join([]string{request.Method, path, "", headers, names, digest}, "\n")
	scope := strings.Join([]string{stamp[:8], region, service, "aws4_request"}, "/")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, scope, sha256Hex([]byte(canonical))}, "\n")
	key := []byte("AWS4" + keys.Secret)
	for _, part := range strings.Split(scope, "/") {
		key = hmacOf(key, part)
	}
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+keys.Key+"/"+scope+
		", SignedHeaders="+names+", Signature="+hex.EncodeToString(hmacOf(key, text)))
}

// canonicalHeaders returns the names of all headers, and the headers with one per line, both sorted.
func canonicalHeaders(request *http.Request) (names, headers string) {
	values := map[string]string{"host": request.URL.Host}
	for name := range request.Header {
		values[strings.ToLower(name)] = strings.TrimSpace(request.Header.Get(name))
	}
	sorted := make([]string, 0, len(values))
	for name := range values {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	for _, name := range sorted {
		headers += name + ":" + values[name] + "\n"
	}
	return strings.Join(sorted, ";"), headers
}

func hmacOf(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func sha256Hex(body []byte) string {
	digest := sha256.Sum256(body)
	return hex.EncodeToString(digest[:])
}
