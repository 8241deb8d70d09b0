package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// The roots of Amazon Trust Services, for images that have no certificates: https://www.amazontrust.com/repository/
//
//go:embed amazon_roots.pem
var amazonRoots []byte

const (
	containerHost = "http://169.254.170.2" // ECS's endpoint for credentials
	patience      = 20 * time.Second       // timeout of one request
	largestAnswer = 16 * 1024 * 1024
)

var outside = sync.OnceValue(func() *http.Client {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM(amazonRoots)
	return &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
})

// inside is the client for the container's credentials endpoint, which is on the same machine: no proxy is used.
var inside = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil}}

// refusal is a response with an error status.
type refusal struct {
	status int
	body   string
	region string // the bucket's region, if S3 reports one
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%d %s: %.500s", r.status, http.StatusText(r.status), r.body)
}

// send sends a request and returns the response's body. The error is a *refusal, or a network error.
func send(client *http.Client, request *http.Request) ([]byte, error) {
	answer, err := client.Do(request)
	if err != nil {
		return nil, withoutAddress(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, largestAnswer))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode >= 300 {
		return nil, &refusal{answer.StatusCode, string(body), answer.Header.Get("X-Amz-Bucket-Region")}
	}
	return body, nil
}

// retry calls until there is no error, the error is not retryable, or the deadline comes. Pauses grow exponentially,
// with full jitter, so that sandboxes that were throttled together do not retry together.
// https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
func retry(deadline time.Time, isRetryable func(error) bool, call func() error) error {
	var before error
	for longest := 200 * time.Millisecond; ; longest = min(2*longest, 4*time.Second) {
		err := call()
		if before != nil && errors.Is(err, context.DeadlineExceeded) {
			return before // more useful than "deadline exceeded"
		}
		pause := rand.N(longest)
		if err == nil || !isRetryable(err) || time.Now().Add(pause).After(deadline) {
			return err
		}
		before = err
		time.Sleep(pause)
	}
}

// isTemporary reports whether the same request may succeed later: after network errors, throttling, and errors in AWS.
func isTemporary(err error) bool {
	var refused *refusal
	if !errors.As(err, &refused) {
		return true
	}
	return refused.status >= 500 || refused.status == http.StatusTooManyRequests || refused.status == http.StatusRequestTimeout ||
		strings.Contains(refused.body, "Throttl") || strings.Contains(refused.body, "TooManyUpdates")
}

// isDenied reports whether permissions are missing. A new role may take seconds to get them everywhere.
func isDenied(err error) bool {
	var refused *refusal
	if !errors.As(err, &refused) {
		return false
	}
	return refused.status == http.StatusForbidden || strings.Contains(refused.body, "AccessDenied") ||
		strings.Contains(refused.body, "ExpiredToken")
}

// --- credentials, region, endpoints ----------------------------------------------------------------------------------

type credentials struct {
	Key    string `json:"AccessKeyId"`
	Secret string `json:"SecretAccessKey"`
	Token  string `json:"Token"`
}

// credentialsOf returns the credentials of the task's or the Lambda's role. In a container they come from the endpoint
// for credentials: variables may hold keys that the step declares for its own use.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func credentialsOf(env environment) (credentials, error) {
	address := env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
	if relative := env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]; relative != "" {
		address = containerHost + relative
	}
	if address == "" {
		found := credentials{env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_SESSION_TOKEN"]}
		if found.Key == "" || found.Secret == "" {
			return found, errors.New("there are no AWS credentials")
		}
		return found, nil
	}
	var found credentials
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return found, err
	}
	if token := authorization(env); token != "" {
		request.Header.Set("Authorization", token)
	}
	body, err := send(inside, request)
	if err == nil {
		err = json.Unmarshal(body, &found)
	}
	if err != nil {
		return found, fmt.Errorf("no credentials from the container's endpoint: %w", err)
	}
	return found, nil
}

func authorization(env environment) string {
	if file := env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]; file != "" {
		content, _ := os.ReadFile(file)
		return string(bytes.TrimSpace(content))
	}
	return env["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
}

func regionOf(env environment) string {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if env[name] != "" {
			return env[name]
		}
	}
	return "us-east-1"
}

// endpoint returns the URL that the environment sets for a service, or an empty string.
func endpoint(env environment, service string) string {
	for _, name := range []string{"AWS_ENDPOINT_URL_" + service, "AWS_ENDPOINT_URL"} {
		if env[name] != "" {
			return strings.TrimSuffix(env[name], "/")
		}
	}
	return ""
}

func domain(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return region + ".amazonaws.com.cn"
	}
	return region + ".amazonaws.com"
}
