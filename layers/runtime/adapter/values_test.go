package main

import (
	"maps"
	"testing"
)

func TestValuesCountInTheirOrderAndBreakNothing(t *testing.T) {
	lambdas := environment{
		"A": "env", "PATH": "/bin", "AWS_LAMBDA_RUNTIME_API": "here",
		"AWS_ACCESS_KEY_ID": "role", "AWS_SECRET_ACCESS_KEY": "role", "AWS_SESSION_TOKEN": "role",
	}
	for name, its := range map[string]struct {
		values values
		want   environment
	}{
		"nothing": {values{}, lambdas},
		"dotenv counts less than env": {
			values{dotenv: map[string]string{"A": "dotenv", "B": "dotenv"}}, lambdas.with(environment{"B": "dotenv"}),
		},
		"but more than what Lambda sets": {
			values{dotenv: map[string]string{"PATH": "/mine"}}, lambdas.with(environment{"PATH": "/mine"}),
		},
		"a secret counts most": {
			values{map[string]string{"A": "dotenv"}, map[string]string{"A": "secret"}},
			lambdas.with(environment{"A": "secret"}),
		},
		"what the runtime lives from stays": {
			values{map[string]string{"AWS_LAMBDA_RUNTIME_API": "x", "_HANDLER": "x", "": "x", "A=B": "x"}, nil}, lambdas,
		},
		"a key of its own goes without Lambda's token": {
			values{secrets: map[string]string{"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own"}},
			lambdas.with(environment{"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own"}).without("AWS_SESSION_TOKEN"),
		},
	} {
		if got := lambdas.merge(its.values); !maps.Equal(got, its.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestEveryParameterIsAskedForOnce(t *testing.T) {
	dotenv := "/d"
	its := valueNames{&dotenv, map[string]string{"A": "/s", "B": "/s", "C": "/a"}}
	names := its.parameters()
	if len(names) != 3 || names[0] != "/a" || names[1] != "/d" || names[2] != "/s" {
		t.Errorf("%v", names)
	}
	if its.missing(map[string]string{"/a": "", "/d": "", "/s": ""}) != "" {
		t.Error("an empty value is a value")
	}
}
