package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	largestArgument = 96 * 1024 // bytes; Linux allows 128 KiB
	piece           = 64 * 1024
)

// attempt is a program to be run once.
type attempt struct {
	command []string
	folder  string // the step's code, and the working directory; empty: the adapter's working directory
	env     environment
	input   []byte
	limit   time.Duration
	stop    <-chan os.Signal // nil: it cannot be stopped early
}

// ending is the result of an attempt.
type ending struct {
	report    report
	stopped   bool
	survivors bool // a process could not be killed
	scratch   *scratch
}

// clean removes the attempt's files. Call it after the report is sent, so that the report does not wait.
func (e ending) clean(deadline time.Time) {
	if e.scratch == nil {
		return
	}
	if !deadline.IsZero() {
		deadline = deadline.Add(-cleaning)
	}
	e.scratch.removeBefore(deadline)
}

// run runs the program until it ends, and writes the log to `to`.
func (a attempt) run(to io.Writer) ending {
	log := newAttemptLog(to)
	defer log.end()
	program, err := locate(a.command[0], a.env["PATH"], a.folder)
	if err != nil {
		return ending{report: report{StartError: &failedStart{err.Error(), false, ""}}}
	}
	files, err := newScratch(a.input)
	if err != nil {
		return ending{report: report{StartError: startProblem(err)}}
	}
	running, err := a.start(program, files, log)
	if err != nil {
		return ending{report: report{StartError: startProblem(err)}, scratch: files}
	}
	end := running.end(a.limit, a.stop)
	end.scratch = files
	return end
}

func (a attempt) start(program string, files *scratch, log *attemptLog) (*execution, error) {
	input, err := os.Open(files.input)
	if err != nil {
		return nil, err
	}
	defer input.Close()
	var readers, writers [2]int
	for i := range readers {
		if readers[i], writers[i], err = pipe(); err != nil {
			return nil, err
		}
		defer syscall.Close(writers[i])
	}
	env := environment{"HOME": files.tmp}.with(a.env)
	env["TMPDIR"], env["STEPWELL_INPUT"] = files.tmp, files.input
	argv := append(append([]string{program}, a.command[1:]...), argument(a.input, files.input))
	handles := []uintptr{input.Fd(), uintptr(writers[0]), uintptr(writers[1])}
	process, err := startProcess(argv, a.folder, env.list(), handles)
	if err != nil {
		syscall.Close(readers[0])
		syscall.Close(readers[1])
		return nil, err
	}
	running := &execution{process: process, stdout: stdout{log: log.add}, log: log}
	running.read(readers)
	return running, nil
}

// pipe creates a pipe that child processes do not inherit. The reader supports deadlines.
func pipe() (reader, writer int, err error) {
	var both [2]int
	if err = syscall.Pipe2(both[:], syscall.O_CLOEXEC); err == nil {
		err = syscall.SetNonblock(both[0], true)
	}
	return both[0], both[1], err
}

// --- while it runs ---------------------------------------------------------------------------------------------------

type execution struct {
	process *process
	pipes   [2]*os.File
	readers sync.WaitGroup
	stdout  stdout
	tail    tail
	log     *attemptLog
}

func (e *execution) read(readers [2]int) {
	for i, receive := range []func([]byte){e.stdout.add, e.receiveError} {
		e.pipes[i] = os.NewFile(uintptr(readers[i]), "pipe")
		e.readers.Add(1)
		go e.receive(e.pipes[i], receive)
	}
}

func (e *execution) receive(from *os.File, receive func([]byte)) {
	defer e.readers.Done()
	buffer := make([]byte, piece)
	for {
		size, err := from.Read(buffer)
		receive(buffer[:size])
		if err != nil {
			return
		}
	}
}

func (e *execution) receiveError(piece []byte) {
	e.tail.add(piece)
	e.log.add(piece)
}

// end waits for the program, or kills it after `limit` or at a signal from `stop`, and returns the result.
func (e *execution) end(limit time.Duration, stop <-chan os.Signal) ending {
	type exit struct {
		status syscall.WaitStatus
		isGone bool
	}
	exited := make(chan exit, 1)
	go func() {
		status, isGone := e.process.wait()
		exited <- exit{status, isGone}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var how exit
	var end ending
	select {
	case how = <-exited:
	case <-timer.C:
		end.report.TimedOut = true
	case <-stop:
		end.stopped = true
	}
	if end.report.TimedOut || end.stopped {
		e.process.kill()
		select {
		case how = <-exited:
		case <-time.After(dying):
		}
	}
	end.survivors = !how.isGone
	e.drain(end.survivors)
	e.judge(how.status, &end.report)
	return end
}

// drain reads the rest of the pipes. If there are survivors, which may hold the pipes open, it stops after a short time.
func (e *execution) drain(survivors bool) {
	for _, pipe := range e.pipes {
		if survivors {
			_ = pipe.SetReadDeadline(time.Now().Add(draining))
		}
	}
	e.readers.Wait()
	for _, pipe := range e.pipes {
		_ = pipe.Close()
	}
}

func (e *execution) judge(status syscall.WaitStatus, report *report) {
	if status.Signaled() {
		signal := int(status.Signal())
		report.Signal = &signal
	} else {
		code := status.ExitStatus()
		report.Exit = &code
	}
	report.Tail = e.tail.lastLine()
	e.stdout.finish(report)
}

// --- what to run -----------------------------------------------------------------------------------------------------

// locate finds the program as a shell in the step's folder would. The error contains the fix.
func locate(name, path, folder string) (string, error) {
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(name) {
			file = filepath.Join(folder, name)
		}
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
			return "", fmt.Errorf("there is no file %s in the step's code; correct the command", name)
		}
		if !isExecutable(file) {
			return "", fmt.Errorf("%s is not executable; run chmod +x on it", name)
		}
		return name, nil
	}
	for _, place := range filepath.SplitList(path) {
		if file := filepath.Join(place, name); isExecutable(file) {
			return file, nil
		}
	}
	here := ""
	if info, err := os.Stat(filepath.Join(folder, name)); folder != "" && err == nil && info.Mode().IsRegular() {
		here = fmt.Sprintf(", or write ./%s for the one in the step's folder", name)
	}
	return "", fmt.Errorf("found no program '%s' on PATH (%s); install it%s", name, path, here)
}

func isExecutable(file string) bool {
	const executable = 1
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && syscall.Access(file, executable) == nil
}

// argument returns the program's last argument: the input, or @file if the input is large.
func argument(input []byte, file string) string {
	if len(input) <= largestArgument {
		return string(input)
	}
	return "@" + file
}

// startProblem describes why the system did not start a program.
func startProblem(err error) *failedStart {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return &failedStart{"cannot be started: " + err.Error(), true, ""}
	}
	hint, retryable := "", false
	switch errno {
	case syscall.ENOEXEC:
		hint = "; a script needs a first line such as #!/bin/sh"
	case syscall.ENOENT:
		hint = "; does its first line (#!) name a program that is here?"
	case syscall.E2BIG:
		hint = "; its arguments or environment variables are too large"
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC:
		retryable = true
	}
	return &failedStart{"cannot be started: " + errno.Error() + hint, retryable, ""}
}
