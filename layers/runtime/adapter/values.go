package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"
)

const (
	parametersAtOnce = 10               // GetParameters takes no more
	atStart          = 6 * time.Second  // Lambda gives 10 to a start, of which the runtime of a handler needs some
	mostAtWork       = 10 * time.Second // of an attempt that waits for them
	leastAtWork      = time.Second      // its Lambda has 2 s more than its timeout
	unread           = "values_unavailable"
)

// atWork is how long an attempt waits for its values: at most half of what it has. An account has 40 GetParameters a
// second unless its throughput was raised, so that of a few hundred sandboxes that start together some wait.
// https://docs.aws.amazon.com/general/latest/gr/ssm.html
func atWork(deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return mostAtWork
	}
	return max(leastAtWork, min(mostAtWork, time.Until(deadline)/2))
}

// values are what a step's environment gets from SSM. They are read at start, so that no value is in a definition.
type values struct {
	dotenv, secrets map[string]string
}

// valueNames is STEPWELL_VALUES: the names of SSM parameters.
type valueNames struct {
	Dotenv  *string           `json:"dotenv"`
	Secrets map[string]string `json:"secrets"`
}

// fetchValues reads them from SSM, and asks again within `budget` if that fails.
func fetchValues(env environment, budget time.Duration) (values, *failedStart) {
	if env["STEPWELL_VALUES"] == "" {
		return values{}, nil
	}
	var its valueNames
	if err := json.Unmarshal([]byte(env["STEPWELL_VALUES"]), &its); err != nil {
		return values{}, &failedStart{"STEPWELL_VALUES is not JSON; push the function again", false, ""}
	}
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	found, err := parameters(ctx, env, its.parameters())
	if err != nil {
		return values{}, &failedStart{"its .env and secrets cannot be read from SSM: " + err.Error(), true, unread}
	}
	if problem := its.missing(found); problem != "" {
		return values{}, &failedStart{problem, false, ""}
	}
	all := values{secrets: make(map[string]string, len(its.Secrets))}
	for name, parameter := range its.Secrets {
		all.secrets[name] = found[parameter]
	}
	if its.Dotenv != nil {
		if all.dotenv, err = parseDotenv(found[*its.Dotenv]); err != nil {
			return values{}, &failedStart{"its .env in SSM is no JSON object of texts; push the function again", false, ""}
		}
	}
	return all, nil
}

func parseDotenv(text string) (found map[string]string, err error) {
	err = json.Unmarshal([]byte(text), &found)
	return found, err
}

// parameters lists the names, each once.
func (its valueNames) parameters() []string {
	var names []string
	if its.Dotenv != nil {
		names = append(names, *its.Dotenv)
	}
	for _, parameter := range its.Secrets {
		names = append(names, parameter)
	}
	sort.Strings(names)
	return slices.Compact(names)
}

// missing says which values are not there, and the cure; empty if all are.
func (its valueNames) missing(found map[string]string) string {
	var words []string
	for name, parameter := range its.Secrets {
		if _, isThere := found[parameter]; !isThere {
			words = append(words, fmt.Sprintf("the secret %s is not set; run `stepwell secrets set %s --env %s`",
				name, name, environmentName(parameter)))
		}
	}
	sort.Strings(words)
	if its.Dotenv != nil {
		if _, isThere := found[*its.Dotenv]; !isThere {
			words = append(words, "its .env is not in SSM any more; push the function again")
		}
	}
	return strings.Join(words, "; ")
}

// environmentName is the `dev` of /stepwell/dev/secrets/NAME.
func environmentName(parameter string) string {
	if parts := strings.Split(parameter, "/"); len(parts) > 2 {
		return parts[2]
	}
	return "ENV"
}

// --- SSM -------------------------------------------------------------------------------------------------------------

// parameters reads these from SSM, decrypted; those that are not there are missing in the result.
func parameters(ctx context.Context, env environment, names []string) (map[string]string, error) {
	found := make(map[string]string, len(names))
	deadline, _ := ctx.Deadline()
	for some := range slices.Chunk(names, parametersAtOnce) {
		// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
		var answer struct {
			Parameters []struct{ Name, Value string }
		}
		body := encode(map[string]any{"Names": some, "WithDecryption": true})
		mayPass := func(err error) bool { return isPassing(err) || isAccess(err) }
		err := patiently(deadline, mayPass, func() error {
			said, err := callSSM(ctx, env, body)
			if err != nil {
				return err
			}
			return json.Unmarshal(said, &answer)
		})
		if err != nil {
			return nil, err
		}
		for _, parameter := range answer.Parameters {
			found[parameter.Name] = parameter.Value
		}
	}
	return found, nil
}

func callSSM(ctx context.Context, env environment, body []byte) ([]byte, error) {
	region := regionOf(env)
	address := endpoint(env, "SSM")
	if address == "" {
		address = "https://ssm." + domain(region)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", "AmazonSSM.GetParameters")
	its, err := credentialsOf(env)
	if err != nil {
		return nil, err
	}
	sign(request, body, its, region, "ssm", time.Now())
	return send(outside(), request)
}
