package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The Lambda Runtime API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
type runtimeAPI struct {
	base   string
	client http.Client
}

type invocation struct {
	id       string
	input    []byte
	deadline time.Time // zero if none was given
	trace    string
}

func newRuntimeAPI(host string) *runtimeAPI {
	// Without a proxy, since the API is on the same machine; without a timeout, since work may come after hours.
	transport := &http.Transport{Proxy: nil, DisableCompression: true, MaxIdleConnsPerHost: 1}
	return &runtimeAPI{"http://" + host + "/2018-06-01/runtime/", http.Client{Transport: transport}}
}

// next waits for work.
func (api *runtimeAPI) next() (*invocation, error) {
	answer, err := api.client.Get(api.base + "invocation/next")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	input, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("Lambda answered %s: %s", answer.Status, input)
	}
	work := &invocation{
		id:    answer.Header.Get("Lambda-Runtime-Aws-Request-Id"),
		input: input,
		trace: answer.Header.Get("Lambda-Runtime-Trace-Id"),
	}
	if ms, err := strconv.ParseInt(answer.Header.Get("Lambda-Runtime-Deadline-Ms"), 10, 64); err == nil {
		work.deadline = time.UnixMilli(ms)
	}
	return work, nil
}

func (api *runtimeAPI) respond(work *invocation, report []byte) error {
	return api.post("invocation/"+work.id+"/response", report, nil)
}

// fail ends an invocation with an error, as a handler does that raises an exception.
func (api *runtimeAPI) fail(work *invocation, kind, message string) error {
	return api.post("invocation/"+work.id+"/error", errorBody(kind, message), errorHeader(kind))
}

func (api *runtimeAPI) failInit(kind, message string) error {
	return api.post("init/error", errorBody(kind, message), errorHeader(kind))
}

func (api *runtimeAPI) post(path string, body []byte, header http.Header) error {
	request, err := http.NewRequest(http.MethodPost, api.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name := range header {
		request.Header.Set(name, header.Get(name))
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := api.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096)) // must be read, or the connection is not reused
	if answer.StatusCode >= 300 {
		return fmt.Errorf("Lambda answered %s: %s", answer.Status, text)
	}
	return nil
}

func errorBody(kind, message string) []byte {
	return encode(map[string]any{"errorType": kind, "errorMessage": message, "stackTrace": []string{}})
}

func errorHeader(kind string) http.Header {
	return http.Header{errorType: {kind}}
}
