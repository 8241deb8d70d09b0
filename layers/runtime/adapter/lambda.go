package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	margin     = time.Second            // before Lambda's deadline: time to kill the program and to report
	longest    = 366 * 24 * time.Hour   // the timeout if none is set
	startError = "Stepwell.StartError"  // errorType if the handler could not be started
	waitError  = "Stepwell.Unavailable" // errorType if the values cannot be read now
	cleaning   = 300 * time.Millisecond // before Lambda's deadline: the rest of a large TMPDIR is removed later
)

// runPrograms runs the step's program for every invocation, until Lambda ends this process.
func runPrograms(api *runtimeAPI, env environment) int {
	var command []string
	if err := json.Unmarshal([]byte(env["STEPWELL_COMMAND"]), &command); err != nil || len(command) == 0 {
		message := "STEPWELL_COMMAND is not a JSON list of strings; push the function again"
		_ = api.failInit(startError, message)
		return logError("%s", message)
	}
	adoptOrphans()
	folder := env["LAMBDA_TASK_ROOT"] + "/step"
	steady, problem := prepared(env, folder, atStart)
	module := modules{folder: env["LAMBDA_TASK_ROOT"] + "/wasm"}
	for {
		work, err := api.next()
		if err != nil {
			return logError("no invocation received: %v", err)
		}
		if problem != nil { // a missing secret may have been set since
			steady, problem = prepared(env, folder, atWork(work.deadline))
		}
		end := ending{report: report{StartError: problem}}
		if problem == nil && env["STEPWELL_MODULE"] != "" {
			module.env = steady
			end = module.run(withoutToken(work.input), limit(env, work.deadline))
		} else if problem == nil {
			end = attempt{
				command: command,
				folder:  folder,
				env:     steady.with(tracing(work)),
				input:   withoutToken(work.input),
				limit:   limit(env, work.deadline),
			}.run(os.Stdout)
		}
		if err := api.respond(work, encode(end.report.numbered())); err != nil {
			return logError("the report was not accepted: %v", err)
		}
		if end.survivors {
			return logError("a process of the step cannot be killed; the next attempt gets a new sandbox")
		}
		end.clean(work.deadline)
	}
}

// prepared returns the part of a program's environment that is the same for all invocations.
func prepared(env environment, folder string, budget time.Duration) (environment, *failedStart) {
	fetched, problem := fetchValues(env, budget)
	if problem != nil {
		return nil, problem
	}
	if env["STEPWELL_MODULE"] != "" {
		return moduleEnvironment(env, strings.Fields(env["STEPWELL_DECLARED"]), fetched), nil
	}
	return env.without("AWS_LAMBDA_RUNTIME_API", "_HANDLER", "PWD", "OLDPWD").merge(fetched).forProgram(folder), nil
}

// withoutToken removes the attempt's token from the input. It is for the engine only, and the last field of `ctx`.
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

// limit returns how long the program may run from now on.
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
	fetched, problem := fetchValues(env, atStart)
	for problem != nil {
		work, err := api.next()
		if err != nil {
			return logError("no invocation received: %v", err)
		}
		kind := startError
		if problem.Kind == unread {
			kind = waitError
		}
		if err := api.fail(work, kind, problem.Message); err != nil {
			return logError("the error was not accepted: %v", err)
		}
		fetched, problem = fetchValues(env, atWork(work.deadline))
	}
	program, err := locate(command[0], env["PATH"], "")
	if err == nil {
		var code int
		code, err = runGuarded(env["AWS_LAMBDA_RUNTIME_API"], program, command, env.merge(fetched).without(internal...))
		if err == nil {
			return code
		}
	}
	message := "the runtime cannot be started: " + command[0] + ": " + err.Error()
	_ = api.failInit(startError, message)
	return logError("%s", message)
}
