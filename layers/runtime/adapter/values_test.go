package main

import (
	"maps"
	"testing"
)

func TestMergeOrdersValuesAndKeepsRuntimeVariables(t *testing.T) {
	lambdas := environment{
		"A": "env", "PATH": "/bin", "AWS_LAMBDA_RUNTIME_API": "here",
		"AWS_ACCESS_KEY_ID": "role", "AWS_SECRET_ACCESS_KEY": "role", "AWS_SESSION_TOKEN": "role",
	}
	for name, example := range map[string]struct {
		values values
		want   environment
	}{
		"nothing": {values{}, lambdas},
		"env overrides dotenv": {
			values{dotenv: map[string]string{"A": "dotenv", "B": "dotenv"}}, lambdas.with(environment{"B": "dotenv"}),
		},
		"dotenv overrides Lambda's own variables": {
			values{dotenv: map[string]string{"PATH": "/mine"}}, lambdas.with(environment{"PATH": "/mine"}),
		},
		"a secret overrides env and dotenv": {
			values{map[string]string{"A": "dotenv"}, map[string]string{"A": "secret"}},
			lambdas.with(environment{"A": "secret"}),
		},
		"variables that the runtime needs are kept": {
			values{map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "_HANDLER": "x", "": "x", "A=B": "x"}, nil}, lambdas,
		},
		"the step's own access key is used without Lambda's session token": {
			values{secrets: map[string]string{"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own"}},
			lambdas.with(environment{"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own"}).without("AWS_SESSION_TOKEN"),
		},
	} {
		if got := lambdas.merge(example.values); !maps.Equal(got, example.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestEachParameterIsRequestedOnce(t *testing.T) {
	dotenv := "/d"
	stored := valueNames{&dotenv, map[string]string{"A": "/s", "B": "/s", "C": "/a"}}
	names := stored.parameters()
	if len(names) != 3 || names[0] != "/a" || names[1] != "/d" || names[2] != "/s" {
		t.Errorf("%v", names)
	}
	if stored.missing(map[string]string{"/a": "", "/d": "", "/s": ""}) != "" {
		t.Error("an empty value is a value")
	}
}
