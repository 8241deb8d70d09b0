package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	tooLarge     = "Stepwell.OutputTooLarge" // errorType of a result that is too large; the message has the size
	largestError = 32 * 1024                 // bytes of an exception's description
	largestHead  = 4 * 1024 * 1024           // runtimes send a whole traceback in one header
	streaming    = "Lambda-Runtime-Function-Response-Mode"
	errorType    = "Lambda-Runtime-Function-Error-Type"
)

// guard is a proxy between the runtime of a native handler and the Runtime API. It turns results that are too large into
// errors, and passes everything else unchanged. Lambda silently drops a destination's record of more than 1 MB, and
// the record includes the input.
//
// The guard also notices the end of an attempt, and empties the TMPDIR before the next one.
type guard struct {
	proxy *httputil.ReverseProxy
	files *scratch // nil if none could be created
}

func newGuard(host string, files *scratch) *guard {
	to := &url.URL{Scheme: "http", Host: host}
	return &guard{files: files, proxy: &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) { request.SetURL(to) },
		// Without a proxy and without a timeout, as for the adapter's own requests.
		Transport:     &http.Transport{Proxy: nil, DisableCompression: true, MaxIdleConnsPerHost: 2},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // the runtime reports errors itself
	}}
}

func (g *guard) ServeHTTP(to http.ResponseWriter, request *http.Request) {
	switch kind := request.URL.Path[strings.LastIndexByte(request.URL.Path, '/')+1:]; {
	case kind == "next" && g.files != nil:
		g.files.empty()
	case request.Method != http.MethodPost || request.Header.Get(streaming) != "":
	case kind == "response":
		text, size := readSome(request.Body, largestText)
		if answer, fits := shrink(text, largestStdout); fits && size == int64(len(text)) {
			replace(request, answer)
			break
		} else if size == int64(len(text)) {
			size = int64(len(answer))
		}
		request.URL.Path = strings.TrimSuffix(request.URL.Path, kind) + "error"
		request.Header = errorHeader(tooLarge)
		request.Header.Set("Content-Type", "application/json")
		replace(request, errorBody(tooLarge, strconv.FormatInt(size, 10)+" bytes"))
	case kind == "error":
		text, size := readSome(request.Body, largestAnswer)
		if size > largestError {
			text = shortError(text, request.Header.Get(errorType))
		}
		replace(request, text)
	}
	g.proxy.ServeHTTP(to, request)
}

// readSome reads the whole body, and returns the first `most` bytes and the total size.
func readSome(body io.Reader, most int64) ([]byte, int64) {
	text, err := io.ReadAll(io.LimitReader(body, most))
	size := int64(len(text))
	if err == nil {
		more, _ := io.Copy(io.Discard, body)
		size += more
	}
	return text, size
}

func replace(request *http.Request, body []byte) {
	request.Body = io.NopCloser(bytes.NewReader(body))
	request.ContentLength, request.TransferEncoding = int64(len(body)), nil
	request.Header.Del("Expect")
}

// shortError shortens the description of an exception. `kind` is the error type if the description cannot be parsed.
func shortError(text []byte, kind string) []byte {
	parsed := struct{ ErrorType, ErrorMessage string }{kind, "the error message is too long"}
	_ = json.Unmarshal(text, &parsed)
	return errorBody(beginning(parsed.ErrorType, 256), beginning(parsed.ErrorMessage, 4096))
}

func beginning(text string, most int) string {
	return strings.ToValidUTF8(text[:min(most, len(text))], "")
}

// runGuarded runs the runtime of a native handler behind a guard, and returns the runtime's exit code. If a signal ends
// the runtime, it ends this process with the same signal.
func runGuarded(host string, program string, command []string, env environment) (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	files, err := newScratch(nil)
	if err == nil {
		defer files.remove()
		env = env.with(environment{"TMPDIR": files.tmp})
	}
	server := &http.Server{Handler: newGuard(host, files), MaxHeaderBytes: largestHead}
	go func() { _ = server.Serve(listener) }()
	env = env.with(environment{"AWS_LAMBDA_RUNTIME_API": listener.Addr().String()})
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTERM)
	pid, err := syscall.ForkExec(program, command, &syscall.ProcAttr{Env: env.list(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 0, err
	}
	preferAsVictim(pid)
	go func() {
		for range stops {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}()
	status, _ := reap(pid, 0)
	if status.Signaled() {
		endBy(status.Signal())
	}
	return status.ExitStatus(), nil
}

// endBy ends this process with a signal, so that Lambda sees how the runtime ended. It restores the default action with
// rt_sigaction(2), since `signal.Reset` keeps some of Go's own handlers.
func endBy(number syscall.Signal) {
	var byDefault [4]uintptr
	const maskBytes = 8
	_, _, _ = syscall.RawSyscall6(
		syscall.SYS_RT_SIGACTION, uintptr(number), uintptr(unsafe.Pointer(&byDefault)), 0, maskBytes, 0, 0)
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	_ = syscall.Kill(os.Getpid(), number)
	time.Sleep(dying)
	os.Exit(128 + int(number))
}
