package main

import (
	"os"
	"path/filepath"
	"strings"
)

// environment holds variables by name.
type environment map[string]string

// internal lists variables for the adapter only, which programs do not receive.
var internal = []string{
	"AWS_LAMBDA_EXEC_WRAPPER", "STEPWELL_COMMAND", "STEPWELL_VALUES", "STEPWELL_VALUES_HASH", "STEPWELL_TIMEOUT_MS",
	"STEPWELL_INPUT_URL", "STEPWELL_REPORT_URL", "STEPWELL_ATTEMPT", "STEPWELL_DOTENV", "STEPWELL_DECLARED",
	"STEPWELL_MODULE",
}

// setByLambda lists the variables that Lambda sets. All others come from the step's `env`.
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

// with returns a copy with these variables added.
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

// merge adds the values: secrets override `env`, and `env` overrides `.env`. If they set an access key without a session
// token, Lambda's session token is removed, because it does not belong to that key.
func (env environment) merge(added values) environment {
	all := env.with(nil)
	for name, value := range added.dotenv {
		_, declared := env[name]
		if !belongsToLambda(name) && (!declared || setByLambda[name]) {
			all[name] = value
		}
	}
	for name, value := range added.secrets {
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

// forProgram returns the environment of a program, the same as on the local server.
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

// layersForPython returns the folders of Python packages in layers. Lambda's Python runtime would search them, but the
// adapter replaces that runtime for programs. For other languages Lambda sets variables.
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
