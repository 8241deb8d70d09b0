// The step adapter runs any program as a step on AWS. It passes the input to the program and reports the result.
//
// It does not interpret the result: the engine decides what an exit code or an output means.
package main

import (
	"fmt"
	"os"
)

const usage = `usage, on Lambda:     as /opt/bootstrap, with STEPWELL_COMMAND; or as AWS_LAMBDA_EXEC_WRAPPER
       in a container: bootstrap exec -- PROGRAM [ARGUMENT...]
       beside one:     bootstrap install FOLDER`

func main() {
	os.Exit(run(os.Args[1:], environmentOf(os.Environ())))
}

func run(args []string, env environment) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch {
	case env["AWS_LAMBDA_RUNTIME_API"] != "" && (env["STEPWELL_COMMAND"] != "" || command == ""):
		return runPrograms(newRuntimeAPI(env["AWS_LAMBDA_RUNTIME_API"]), env)
	case env["AWS_LAMBDA_RUNTIME_API"] != "":
		return guardRuntime(newRuntimeAPI(env["AWS_LAMBDA_RUNTIME_API"]), args, env)
	case command == "exec" && len(args) > 2 && args[1] == "--":
		return runContainer(args[2:], env)
	case (command == "install" || command == "copy") && len(args) == 2:
		return install(args[1])
	}
	fmt.Fprintln(os.Stderr, usage)
	return 2
}

// logError writes an error to the log and returns the exit code 1.
func logError(format string, words ...any) int {
	fmt.Fprintf(os.Stderr, "stepwell: "+format+"\n", words...)
	return 1
}
