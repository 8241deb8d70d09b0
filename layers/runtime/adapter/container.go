package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	inputBudget  = 2 * time.Minute
	reportBudget = 10 * time.Minute // if the report is lost, so is the attempt
	terminated   = 128 + int(syscall.SIGTERM)
	sharedTmp    = "tmp" // beside the installed adapter, for images without /tmp
)

// runContainer fetches the input, runs the container's program and stores the report. There is no report if the
// container is stopped: then the attempt is over, or is started again elsewhere.
func runContainer(command []string, env environment) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fetched := make(chan fetchedInput, 1)
	go func() { fetched <- fetchInput(env) }()
	var input fetchedInput
	select {
	case input = <-fetched:
	case <-stop:
		return terminated
	}
	end := ending{report: report{StartError: input.problem}}
	if input.problem == nil {
		end = startContained(command, env, input.content, stop)
	}
	if end.stopped {
		end.clean(time.Time{})
		return terminated
	}
	if err := putReport(env, end.report); err != nil {
		return logError("the report cannot be stored: %v", err)
	}
	end.clean(time.Time{})
	return 0
}

func startContained(command []string, env environment, input []byte, stop <-chan os.Signal) ending {
	all, err := withDotenv(env)
	if err != nil {
		problem := &failedStart{"the .env in SSM is not a JSON object of strings; push the function again", false, ""}
		return ending{report: report{StartError: problem}}
	}
	adoptOrphans()
	return attempt{
		command: command,
		env:     all.forProgram(""),
		input:   input,
		limit:   timeout(env),
		stop:    stop,
	}.run(os.Stdout)
}

// withDotenv adds the step's .env. It overrides the image's variables; the step's `env` and `secrets` override it. The
// environment in ECS has all of them, and STEPWELL_DECLARED lists the names that the step sets.
func withDotenv(env environment) (environment, error) {
	all := env.with(nil)
	if env["STEPWELL_DOTENV"] == "" {
		return all, nil
	}
	dotenv, err := parseDotenv(env["STEPWELL_DOTENV"])
	declared := strings.Fields(env["STEPWELL_DECLARED"])
	for name, value := range dotenv {
		if !slices.Contains(declared, name) {
			all[name] = value
		}
	}
	return all, err
}

// install copies the adapter to a folder that the task's other container shares.
func install(folder string) int {
	if err := installIn(folder); err != nil {
		return logError("cannot be installed: %v", err)
	}
	return 0
}

func installIn(folder string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	new := filepath.Join(folder, ".bootstrap")
	to, err := os.OpenFile(new, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, self)
	err = errors.Join(err, to.Chmod(0o755), to.Close())
	if err != nil {
		return err
	}
	tmp := filepath.Join(folder, sharedTmp)
	if err := os.MkdirAll(tmp, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil { // the image may run as any user
		return err
	}
	return os.Rename(new, filepath.Join(folder, "bootstrap"))
}

// --- input and report ------------------------------------------------------------------------------------------------

type fetchedInput struct {
	content []byte
	problem *failedStart
}

func fetchInput(env environment) fetchedInput {
	var content []byte
	isRetryable := func(err error) bool { return isTemporary(err) || isDenied(err) }
	err := retry(time.Now().Add(inputBudget), isRetryable, func() (err error) {
		content, err = transfer(env, http.MethodGet, env["STEPWELL_INPUT_URL"], nil)
		return err
	})
	if err != nil {
		return fetchedInput{problem: &failedStart{"the input cannot be read: " + err.Error(), true, ""}}
	}
	return fetchedInput{content: content}
}

func putReport(env environment, r report) error {
	body := encode(r.numbered())
	return retry(time.Now().Add(reportBudget), func(error) bool { return true }, func() error {
		_, err := transfer(env, http.MethodPut, env["STEPWELL_REPORT_URL"], body)
		return err
	})
}

// transfer reads or writes an object. The address is a presigned URL, or s3://bucket/key.
func transfer(env environment, method, address string, body []byte) ([]byte, error) {
	bucket, key, isS3 := splitS3(address)
	if !isS3 {
		request, err := http.NewRequest(method, address, bytes.NewReader(body))
		if err != nil {
			return nil, withoutAddress(err)
		}
		return send(outside(), request)
	}
	region := regionOf(env)
	content, err := transferS3(env, region, method, bucket, key, body)
	var refused *refusal
	if errors.As(err, &refused) && refused.region != "" && refused.region != region {
		return transferS3(env, refused.region, method, bucket, key, body) // the step sets AWS_REGION to another region
	}
	return content, err
}

func transferS3(env environment, region, method, bucket, key string, body []byte) ([]byte, error) {
	keys, err := credentialsOf(env)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, objectAddress(env, region, bucket, key), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	sign(request, body, keys, region, "s3", time.Now())
	return send(outside(), request)
}

func splitS3(address string) (bucket, key string, isS3 bool) {
	rest, isS3 := strings.CutPrefix(address, "s3://")
	bucket, key, _ = strings.Cut(rest, "/")
	return bucket, key, isS3
}

func objectAddress(env environment, region, bucket, key string) string {
	path := (&url.URL{Path: "/" + key}).EscapedPath()
	if own := endpoint(env, "S3"); own != "" {
		return own + "/" + bucket + path
	}
	if strings.Contains(bucket, ".") { // S3's wildcard certificate does not match such a host
		return "https://s3." + domain(region) + "/" + bucket + path
	}
	return "https://" + bucket + ".s3." + domain(region) + path
}

// withoutAddress removes the URL from an error, since a presigned URL is a secret and errors are logged.
func withoutAddress(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
