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
	parametersAtOnce = 10               // the limit of GetParameters
	atStart          = 6 * time.Second  // of the 10 s that Lambda allows for a start; the handler's runtime needs the rest
	mostAtWork       = 10 * time.Second // the longest that an attempt waits for values
	leastAtWork      = time.Second      // the Lambda has 2 s more than the step's timeout
	unread           = "values_unavailable"
)

// atWork returns how long an attempt waits for values: at most half of the time until the deadline. The default limit of
// an account is 40 GetParameters a second, so a few hundred sandboxes that start together must wait.
// https://docs.aws.amazon.com/general/latest/gr/ssm.html
func atWork(deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return mostAtWork
	}
	return max(leastAtWork, min(mostAtWork, time.Until(deadline)/2))
}

// values are a step's `.env` and secrets. They are read from SSM at start, so that no version contains them.
type values struct {
	dotenv, secrets map[string]string
}

// valueNames is the content of STEPWELL_VALUES: names of SSM parameters.
type valueNames struct {
	Dotenv  *string           `json:"dotenv"`
	Secrets map[string]string `json:"secrets"`
}

// fetchValues reads the values from SSM, with retries within `budget`.
func fetchValues(env environment, budget time.Duration) (values, *failedStart) {
	if env["STEPWELL_VALUES"] == "" {
		return values{}, nil
	}
	var stored valueNames
	if err := json.Unmarshal([]byte(env["STEPWELL_VALUES"]), &stored); err != nil {
		return values{}, &failedStart{"STEPWELL_VALUES is not JSON; push the function again", false, ""}
	}
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	found, err := parameters(ctx, env, stored.parameters())
	if err != nil {
		return values{}, &failedStart{"the step's .env and secrets cannot be read from SSM: " + err.Error(), true, unread}
	}
	if problem := stored.missing(found); problem != "" {
		return values{}, &failedStart{problem, false, ""}
	}
	all := values{secrets: make(map[string]string, len(stored.Secrets))}
	for name, parameter := range stored.Secrets {
		all.secrets[name] = found[parameter]
	}
	if stored.Dotenv != nil {
		if all.dotenv, err = parseDotenv(found[*stored.Dotenv]); err != nil {
			return values{}, &failedStart{"the .env in SSM is not a JSON object of strings; push the function again", false, ""}
		}
	}
	return all, nil
}

func parseDotenv(text string) (found map[string]string, err error) {
	err = json.Unmarshal([]byte(text), &found)
	return found, err
}

// parameters returns the names of the SSM parameters, without repeats.
func (n valueNames) parameters() []string {
	var names []string
	if n.Dotenv != nil {
		names = append(names, *n.Dotenv)
	}
	for _, parameter := range n.Secrets {
		names = append(names, parameter)
	}
	sort.Strings(names)
	return slices.Compact(names)
}

// missing describes the values that are missing, and how to set them. Empty if there are all.
func (n valueNames) missing(found map[string]string) string {
	var words []string
	for name, parameter := range n.Secrets {
		if _, exists := found[parameter]; !exists {
			words = append(words, fmt.Sprintf("the secret %s is not set; run `stepwell secrets set %s --env %s`",
				name, name, environmentName(parameter)))
		}
	}
	sort.Strings(words)
	if n.Dotenv != nil {
		if _, exists := found[*n.Dotenv]; !exists {
			words = append(words, "the .env is no longer in SSM; push the function again")
		}
	}
	return strings.Join(words, "; ")
}

// environmentName returns the environment in a parameter's name: `dev` in /stepwell/dev/secrets/NAME.
func environmentName(parameter string) string {
	if parts := strings.Split(parameter, "/"); len(parts) > 2 {
		return parts[2]
	}
	return "ENV"
}

// --- SSM -------------------------------------------------------------------------------------------------------------

// parameters returns the decrypted SSM parameters with these names that exist.
func parameters(ctx context.Context, env environment, names []string) (map[string]string, error) {
	found := make(map[string]string, len(names))
	deadline, _ := ctx.Deadline()
	for page := range slices.Chunk(names, parametersAtOnce) {
		// https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameters.html
		var answer struct {
			Parameters []struct{ Name, Value string }
		}
		body := encode(map[string]any{"Names": page, "WithDecryption": true})
		isRetryable := func(err error) bool { return isTemporary(err) || isDenied(err) }
		err := retry(deadline, isRetryable, func() error {
			content, err := callSSM(ctx, env, body)
			if err != nil {
				return err
			}
			return json.Unmarshal(content, &answer)
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
	keys, err := credentialsOf(env)
	if err != nil {
		return nil, err
	}
	sign(request, body, keys, region, "ssm", time.Now())
	return send(outside(), request)
}
