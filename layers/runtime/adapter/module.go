package main

import (
	"errors"
	"os"
	"syscall"
	"time"
)

const largestModuleAnswer = 32 * 1024

// moduleEnd describes how a WebAssembly module ended. The engine knows what it means.
type moduleEnd struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// modules runs a WebAssembly module for every attempt, in a Python process with wasmtime. The process is kept for the next
// attempt, and killed if an attempt does not end in time. `wasm_lambda_worker.py` is the other side.
type modules struct {
	folder  string // of the scripts and of wasmtime
	env     environment
	worker  *process
	channel int // a socket that preserves message boundaries
}

// moduleEnvironment returns the variables of the process that runs modules. Those of the module have a prefix, so that they
// do not affect the process. Nothing else of the Lambda's environment reaches it.
func moduleEnvironment(env environment, declared []string, fetched values) environment {
	all := environment{"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
	for _, name := range []string{"PATH", "LD_LIBRARY_PATH", "STEPWELL_MODULE"} {
		if value, found := env[name]; found {
			all[name] = value
		}
	}
	const prefix = "STEP_"
	for name, value := range fetched.dotenv {
		all[prefix+name] = value
	}
	for _, name := range declared {
		all[prefix+name] = env[name]
	}
	for name, value := range fetched.secrets {
		all[prefix+name] = value
	}
	return all
}

// run runs the module once.
func (m *modules) run(input []byte, limit time.Duration) ending {
	log := newAttemptLog(os.Stdout)
	defer log.end()
	files, err := newScratch(input)
	if err != nil {
		return ending{report: report{StartError: startProblem(err)}}
	}
	end := ending{scratch: files}
	running, err := m.begin(files, log)
	if err != nil {
		end.report.StartError = startProblem(err)
		return end
	}
	answers := make(chan *moduleEnd, 1)
	go func() { answers <- m.answer() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var status syscall.WaitStatus
	select {
	case end.report.Module = <-answers:
		if end.report.Module == nil {
			status = m.stop(&end)
		}
	case <-timer.C:
		end.report.TimedOut = true
		status = m.stop(&end)
	}
	running.drain(end.survivors)
	running.judge(status, &end.report)
	return end
}

// start starts the process.
func (m *modules) start() error {
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(ends[1])
	nowhere, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		syscall.Close(ends[0])
		return err
	}
	defer nowhere.Close()
	program, err := locate("python3", m.env["PATH"], "")
	if err == nil {
		argv := []string{program, "-I", "-X", "faulthandler", m.folder + "/wasm_lambda_worker.py", "3"}
		files := []uintptr{nowhere.Fd(), nowhere.Fd(), os.Stderr.Fd(), uintptr(ends[1])}
		m.worker, err = startProcess(argv, "/", m.env.list(), files)
	}
	if err != nil {
		syscall.Close(ends[0])
		return err
	}
	m.channel = ends[0]
	return nil
}

// begin sends a request to the process, or to a new one if it is gone.
func (m *modules) begin(files *scratch, log *attemptLog) (*execution, error) {
	if m.worker != nil {
		if running, err := m.request(files, log); err == nil {
			return running, nil
		}
		m.stop(&ending{})
	}
	if err := m.start(); err != nil {
		return nil, err
	}
	running, err := m.request(files, log)
	if err != nil {
		m.stop(&ending{})
	}
	return running, err
}

// request sends a request. The process writes the module's stdout and stderr to pipes of the attempt.
func (m *modules) request(files *scratch, log *attemptLog) (*execution, error) {
	var readers, writers [2]int
	for i := range readers {
		var err error
		if readers[i], writers[i], err = pipe(); err != nil {
			return nil, err
		}
		defer syscall.Close(writers[i])
	}
	if err := syscall.Sendmsg(m.channel, []byte(files.folder), syscall.UnixRights(writers[:]...), nil, 0); err != nil {
		syscall.Close(readers[0])
		syscall.Close(readers[1])
		return nil, err
	}
	running := &execution{process: m.worker, stdout: stdout{log: log.add}, log: log}
	running.read(readers)
	return running, nil
}

// answer waits for the answer. It returns nil if the process has ended.
func (m *modules) answer() *moduleEnd {
	buffer := make([]byte, largestModuleAnswer)
	for {
		size, err := syscall.Read(m.channel, buffer)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || size == 0 {
			return nil
		}
		return &moduleEnd{string(buffer[:1]), string(buffer[1:size])}
	}
}

// stop kills the process. The next attempt starts another one.
func (m *modules) stop(end *ending) syscall.WaitStatus {
	m.worker.kill()
	status, isGone := m.worker.wait()
	end.survivors = !isGone
	syscall.Close(m.channel)
	m.worker = nil
	return status
}
