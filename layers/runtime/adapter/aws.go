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
	containerHost = "http://169.254.170.2" // where ECS answers for credentials
	patience      = 20 * time.Second       // for one request
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

// Credentials are asked for on the machine itself, where no proxy leads.
var inside = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{Proxy: nil}}

// refusal is an answer that is none.
type refusal struct {
	status int
	body   string
	region string // where the bucket is, if S3 says so
}

func (its *refusal) Error() string {
	return fmt.Sprintf("%d %s: %.500s", its.status, http.StatusText(its.status), its.body)
}

// send sends a request and returns the answer's body; the error is a *refusal or of the network.
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

// patiently calls again while `mayPass` holds of the error and there is time. The pauses grow, and each is anything
// between nothing and that long, so that sandboxes which were refused together do not come back together.
// https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
func patiently(deadline time.Time, mayPass func(error) bool, call func() error) error {
	var before error
	for longest := 200 * time.Millisecond; ; longest = min(2*longest, 4*time.Second) {
		err := call()
		if before != nil && errors.Is(err, context.DeadlineExceeded) {
			return before // which says more than that there was no time for another call
		}
		pause := rand.N(longest)
		if err == nil || !mayPass(err) || time.Now().Add(pause).After(deadline) {
			return err
		}
		before = err
		time.Sleep(pause)
	}
}

// isPassing tells whether the same request may succeed later: the network, an overload, a fault of theirs.
func isPassing(err error) bool {
	var its *refusal
	if !errors.As(err, &its) {
		return true
	}
	return its.status >= 500 || its.status == http.StatusTooManyRequests || its.status == http.StatusRequestTimeout ||
		strings.Contains(its.body, "Throttl") || strings.Contains(its.body, "TooManyUpdates")
}

// isAccess tells whether it was refused for rights, which a new role may take seconds to get everywhere.
func isAccess(err error) bool {
	var its *refusal
	if !errors.As(err, &its) {
		return false
	}
	return its.status == http.StatusForbidden || strings.Contains(its.body, "AccessDenied") ||
		strings.Contains(its.body, "ExpiredToken")
}

// --- who we are, and where -------------------------------------------------------------------------------------------

type credentials struct {
	Key    string `json:"AccessKeyId"`
	Secret string `json:"SecretAccessKey"`
	Token  string `json:"Token"`
}

// credentialsOf asks the container's endpoint if there is one: keys that a step declares are the step's own affair.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
func credentialsOf(env environment) (credentials, error) {
	address := env["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
	if relative := env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]; relative != "" {
		address = containerHost + relative
	}
	if address == "" {
		its := credentials{env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_SESSION_TOKEN"]}
		if its.Key == "" || its.Secret == "" {
			return its, errors.New("there are no AWS credentials")
		}
		return its, nil
	}
	var its credentials
	request, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return its, err
	}
	if token := authorization(env); token != "" {
		request.Header.Set("Authorization", token)
	}
	body, err := send(inside, request)
	if err == nil {
		err = json.Unmarshal(body, &its)
	}
	if err != nil {
		return its, fmt.Errorf("no credentials from the container's endpoint: %w", err)
	}
	return its, nil
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

// endpoint is what the environment says a service's is, else empty.
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
