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
	tooLarge     = "Stepwell.OutputTooLarge" // Lambda's errorType for an answer that nobody takes; its message is the size
	largestError = 32 * 1024                 // of what is told of an exception
	largestHead  = 4 * 1024 * 1024           // runtimes put a whole traceback into one header
	streaming    = "Lambda-Runtime-Function-Response-Mode"
	errorType    = "Lambda-Runtime-Function-Error-Type"
)

// guard stands between the runtime of a native handler and the Runtime API. Lambda drops a destination's record of more
// than 1 MB without a word, and the record repeats the input, so that an answer that no step may give must not get there.
//
// It also sees where an attempt ends, and so empties the TMPDIR between two of them.
//
// One rule: what is not too large passes as it is.
type guard struct {
	proxy *httputil.ReverseProxy
	files *scratch // nil where none could be made
}

func newGuard(host string, files *scratch) *guard {
	to := &url.URL{Scheme: "http", Host: host}
	return &guard{files: files, proxy: &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) { request.SetURL(to) },
		// No proxy, whatever the environment says, and no timeout, as for the adapter's own requests.
		Transport:     &http.Transport{Proxy: nil, DisableCompression: true, MaxIdleConnsPerHost: 2},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // the runtime itself says what it did not get
	}}
}

func (its *guard) ServeHTTP(to http.ResponseWriter, request *http.Request) {
	switch kind := request.URL.Path[strings.LastIndexByte(request.URL.Path, '/')+1:]; {
	case kind == "next" && its.files != nil:
		its.files.empty()
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
	its.proxy.ServeHTTP(to, request)
}

// readSome reads a body to its end, and returns its beginning, with the size of it all.
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

// shortError is what can be told of an exception that has too much to say; `kind` if it cannot be read.
func shortError(text []byte, kind string) []byte {
	its := struct{ ErrorType, ErrorMessage string }{kind, "its message is too long to be read"}
	_ = json.Unmarshal(text, &its)
	return errorBody(beginning(its.ErrorType, 256), beginning(its.ErrorMessage, 4096))
}

func beginning(text string, most int) string {
	return strings.ToValidUTF8(text[:min(most, len(text))], "")
}

// runGuarded runs the runtime of a native handler behind a guard; it ends as that runtime ends.
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

// endBy ends this process by a signal, so that Lambda sees what happened to the one that it knows nothing of. Go has
// handlers of its own for some, which `signal.Reset` leaves in place: rt_sigaction(2), SIG_DFL.
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
