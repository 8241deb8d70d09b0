package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// The case `get-vanilla` of AWS's own test suite for Signature Version 4.
func TestARequestIsSignedAsAWSSaysItIs(t *testing.T) {
	request, _ := http.NewRequest(http.MethodGet, "https://example.amazonaws.com/", nil)
	keys := credentials{"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", ""}
	sign(request, nil, keys, "us-east-1", "service", time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC))
	want := "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, " +
		"SignedHeaders=host;x-amz-date, " +
		"Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
	if got := request.Header.Get("Authorization"); got != want {
		t.Errorf("%s", got)
	}
}

func TestObjectsAreWhereTheirRegionIs(t *testing.T) {
	for bucket, want := range map[string]string{
		"bucket":   "https://bucket.s3.eu-west-1.amazonaws.com/a/b%20c",
		"a.bucket": "https://s3.eu-west-1.amazonaws.com/a.bucket/a/b%20c",
	} {
		if got := objectAddress(environment{}, "eu-west-1", bucket, "a/b c"); got != want {
			t.Errorf("%s", got)
		}
	}
	if got := objectAddress(environment{}, "cn-north-1", "b", "k"); !strings.HasSuffix(got, ".amazonaws.com.cn/k") {
		t.Errorf("%s", got)
	}
}
