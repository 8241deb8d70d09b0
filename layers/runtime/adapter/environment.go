package main

import (
	"os"
	"path/filepath"
	"strings"
)

// environment holds variables by name.
type environment map[string]string

// What the adapter, or the way it is started, needs, and no program.
var internal = []string{
	"AWS_LAMBDA_EXEC_WRAPPER", "STEPWELL_COMMAND", "STEPWELL_VALUES", "STEPWELL_VALUES_HASH", "STEPWELL_TIMEOUT_MS",
	"STEPWELL_INPUT_URL", "STEPWELL_REPORT_URL", "STEPWELL_ATTEMPT", "STEPWELL_DOTENV", "STEPWELL_DECLARED",
}

// What Lambda itself sets; every other variable that is there was declared by the step's `env`.
var setByLambda = map[string]bool{
	"LANG": true, "TZ": true, "PATH": true, "LD_LIBRARY_PATH": true, "NODE_PATH": true, "PYTHONPATH": true,
	"AWS_REGION": true, "AWS_DEFAULT_REGION": true,
	"AWS_ACCESS_KEY_ID": true, "AWS_SECRET_ACCESS_KEY": true, "AWS_SESSION_TOKEN": true,
}

func environmentOf(variables []string) environment {
	env := make(environment, len(variables)+16)
	for _, variable := range variables {
		if name, value, found := strings.Cut(variable, "="); found {
			env[name] = value
		}
	}
	return env
}

func (env environment) list() []string {
	variables := make([]string, 0, len(env))
	for name, value := range env {
		variables = append(variables, name+"="+value)
	}
	return variables
}

// with returns a copy that has these variables too.
func (env environment) with(more environment) environment {
	all := make(environment, len(env)+len(more))
	for name, value := range env {
		all[name] = value
	}
	for name, value := range more {
		all[name] = value
	}
	return all
}

func (env environment) without(names ...string) environment {
	rest := env.with(nil)
	for _, name := range names {
		delete(rest, name)
	}
	return rest
}

// merge adds values by their precedence: .env < env < secrets. Credentials go together: a session token of Lambda's
// beside somebody else's key would be no credentials at all.
func (env environment) merge(its values) environment {
	all := env.with(nil)
	for name, value := range its.dotenv {
		_, declared := env[name]
		if !belongsToLambda(name) && (!declared || setByLambda[name]) {
			all[name] = value
		}
	}
	for name, value := range its.secrets {
		if !belongsToLambda(name) {
			all[name] = value
		}
	}
	if all["AWS_ACCESS_KEY_ID"] != env["AWS_ACCESS_KEY_ID"] && all["AWS_SESSION_TOKEN"] == env["AWS_SESSION_TOKEN"] {
		delete(all, "AWS_SESSION_TOKEN")
	}
	return all
}

func belongsToLambda(name string) bool {
	return strings.HasPrefix(name, "AWS_LAMBDA_") || strings.HasPrefix(name, "LAMBDA_") || name == "_HANDLER" ||
		name == "" || strings.ContainsAny(name, "=\x00")
}

// forProgram is what a program gets: the same as on one machine.
func (env environment) forProgram(folder string) environment {
	all := environment{"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}.with(env).without(internal...)
	if own := folder + "/.venv/bin"; folder != "" && isFolder(own) {
		all["PATH"] = own + ":" + all["PATH"]
	}
	if packages := layersForPython(); len(packages) > 0 {
		if own := all["PYTHONPATH"]; own != "" {
			packages = append([]string{own}, packages...)
		}
		all["PYTHONPATH"] = strings.Join(packages, ":")
	}
	return all
}

// layersForPython are the folders of the layers beside the adapter where Lambda's runtime for Python, whose place the
// adapter takes, would look for packages. For other languages, Lambda says it in variables.
// https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html
func layersForPython() []string {
	program, err := os.Executable()
	if err != nil {
		return nil
	}
	root := filepath.Join(filepath.Dir(program), "python")
	packages, _ := filepath.Glob(filepath.Join(root, "lib", "python3.*", "site-packages"))
	if isFolder(root) {
		packages = append([]string{root}, packages...)
	}
	return packages
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
