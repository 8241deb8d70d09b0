package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"time"
)

const (
	margin     = time.Second            // before Lambda's deadline: room to kill, and to say so
	longest    = 366 * 24 * time.Hour   // of a timeout, where none is given
	startError = "Stepwell.StartError"  // Lambda's errorType for a handler that could not be started
	waitError  = "Stepwell.Unavailable" // and for one whose values could not be read now
	cleaning   = 300 * time.Millisecond // before Lambda's deadline: a large TMPDIR is removed later
)

// runPrograms runs the step's program for every invocation, until Lambda ends this process.
func runPrograms(api *runtimeAPI, env environment) int {
	var command []string
	if err := json.Unmarshal([]byte(env["STEPWELL_COMMAND"]), &command); err != nil || len(command) == 0 {
		message := "STEPWELL_COMMAND is no JSON list of words; push the function again"
		_ = api.failInit(startError, message)
		return complain("%s", message)
	}
	adoptOrphans()
	folder := env["LAMBDA_TASK_ROOT"] + "/step"
	steady, problem := prepared(env, folder, atStart)
	for {
		work, err := api.next()
		if err != nil {
			return complain("no work: %v", err)
		}
		if problem != nil { // a secret may have been set since
			steady, problem = prepared(env, folder, atWork(work.deadline))
		}
		its := ending{report: report{StartError: problem}}
		if problem == nil {
			its = attempt{
				command: command,
				folder:  folder,
				env:     steady.with(tracing(work)),
				input:   withoutToken(work.input),
				limit:   limit(env, work.deadline),
			}.run(os.Stdout)
		}
		if err := api.respond(work, encode(its.report.numbered())); err != nil {
			return complain("the report was not taken: %v", err)
		}
		if its.survivors {
			return complain("a process of the step cannot be killed; the next attempt gets a new sandbox")
		}
		its.clean(work.deadline)
	}
}

// prepared is all of a program's environment that invocations have in common.
func prepared(env environment, folder string, budget time.Duration) (environment, *failedStart) {
	its, problem := fetchValues(env, budget)
	if problem != nil {
		return nil, problem
	}
	return env.without("AWS_LAMBDA_RUNTIME_API", "_HANDLER", "PWD", "OLDPWD").merge(its).forProgram(folder), nil
}

// withoutToken is the input as the contract has it: the token, last in `ctx`, is the engine's, and of no use to a program.
func withoutToken(input []byte) []byte {
	const mark = `,"token":"`
	if at := bytes.LastIndex(input, []byte(mark)); at >= 0 {
		if rest := input[at+len(mark):]; bytes.IndexByte(rest, '"') == len(rest)-3 && bytes.HasSuffix(rest, []byte(`"}}`)) {
			return append(input[:at], "}}"...)
		}
	}
	return input
}

func tracing(work *invocation) environment {
	if work.trace == "" {
		return nil
	}
	return environment{"_X_AMZN_TRACE_ID": work.trace}
}

// limit is how long the program may run from now on.
func limit(env environment, deadline time.Time) time.Duration {
	most := timeout(env)
	if !deadline.IsZero() {
		most = min(most, time.Until(deadline)-margin)
	}
	return max(most, 0)
}

func timeout(env environment) time.Duration {
	ms, err := strconv.ParseInt(env["STEPWELL_TIMEOUT_MS"], 10, 64)
	if err != nil || ms <= 0 || ms > longest.Milliseconds() {
		return longest
	}
	return time.Duration(ms) * time.Millisecond
}

// guardRuntime runs the runtime of a native handler, with the step's values in its environment.
func guardRuntime(api *runtimeAPI, command []string, env environment) int {
	its, problem := fetchValues(env, atStart)
	for problem != nil {
		work, err := api.next()
		if err != nil {
			return complain("no work: %v", err)
		}
		kind := startError
		if problem.Kind == unread {
			kind = waitError
		}
		if err := api.fail(work, kind, problem.Message); err != nil {
			return complain("the error was not taken: %v", err)
		}
		its, problem = fetchValues(env, atWork(work.deadline))
	}
	program, err := locate(command[0], env["PATH"], "")
	if err == nil {
		var code int
		code, err = runGuarded(env["AWS_LAMBDA_RUNTIME_API"], program, command, env.merge(its).without(internal...))
		if err == nil {
			return code
		}
	}
	message := "the runtime cannot be started: " + command[0] + ": " + err.Error()
	_ = api.failInit(startError, message)
	return complain("%s", message)
}
