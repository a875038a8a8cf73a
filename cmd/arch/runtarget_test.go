package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ociname "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
)

// TestRunTargets sends an output to all kinds of places, and refuses before anything runs what cannot be done.
func TestRunTargets(t *testing.T) {
	worker := buildWorker(t)
	jobs, err := filepath.Abs("../../tests/examples/jobs")
	if err != nil {
		t.Fatal(err)
	}
	ownHome(t)
	t.Setenv("ARCH_WORKER", worker)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, name := range []string{"wordcount.wasm", "text"} {
		data, err := os.ReadFile(filepath.Join(jobs, name))
		if err == nil {
			err = os.WriteFile(name, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	doc, err := os.ReadFile(filepath.Join(jobs, "wordcount.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	run := func(target string, args ...string) (int, string, string) {
		t.Helper()
		text := strings.Replace(string(doc), "counts: store", "counts: \""+target+"\"", 1)
		if text == string(doc) && target != "store" {
			t.Fatalf("the document has no output counts: store\n%s", doc)
		}
		if err := os.WriteFile("job.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return arch(t, nil, append([]string{"run", "--json", "--driver", "namespace", "--out", "out"}, append(args, "job.yaml")...)...)
	}
	result := func(out string) (res runResult) {
		t.Helper()
		if err := json.Unmarshal([]byte(out), &res); err != nil {
			t.Fatal(err)
		}
		return res
	}
	status, out, errout := run("store")
	if status != exitOK {
		t.Fatalf("exit status %d\n%s", status, errout)
	}
	sum := *result(out).Outputs[0].File
	if err := os.RemoveAll("out"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		target string
		args   []string
		status int
		says   string
	}{
		{"oci:" + host + "/words:v1", nil, exitUsage, "--publish pushes it there"},
		{"oci:" + host + "/words:v1", []string{"--publish", "--offline"}, exitUsage, "--offline is given"},
		{"oci:" + host + "/words:v1", []string{"--publish", "--unpublished"}, exitUsage, "contradicts"},
		{"oci:127.0.0.1:1/words", []string{"--publish"}, exitError, "publish to 127.0.0.1:1/words"},
		{"ipfs", nil, exitUsage, "which arch run does not do"},
		{"ipfs", []string{"--publish"}, exitUsage, "which arch run does not do"},
		{"ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", nil, exitError, "cannot be compared"},
		{"ipfs://" + digest.Of(nil).CID(), nil, exitNotReproducible, "but the document expects"},
		{"example.org/x@" + sum.String(), nil, exitError, "cannot be compared"},
	} {
		status, _, errout := run(tt.target, tt.args...)
		if status != tt.status || !strings.Contains(errout, tt.says) || !strings.Contains(errout, `"hint":"`) {
			t.Errorf("%s %q: exit status %d, want %d\n%s", tt.target, tt.args, status, tt.status, errout)
		}
		if _, err := os.Stat("out"); err == nil {
			t.Errorf("%s %q left outputs", tt.target, tt.args)
		}
	}
	for target, args := range map[string][]string{"ipfs": {"--unpublished"}, "oci:" + host + "/words": {"--unpublished"}, "ipfs://" + sum.CID(): nil} {
		status, out, errout := run(target, args...)
		if status != exitOK || result(out).Outputs[0].Published != "" {
			t.Errorf("%s: exit status %d\n%s", target, status, errout)
		}
	}
	tag, err := ociname.NewTag(host + "/words:v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Get(tag); err == nil {
		t.Error("something was pushed before anybody asked for that")
	}
	status, out, errout = run("oci:"+host+"/words:v1", "--publish", "--attest")
	if status != exitOK {
		t.Fatalf("exit status %d\n%s", status, errout)
	}
	d, err := remote.Get(tag)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := result(out).Outputs[0].Published, host+"/words:v1@"+d.Digest.String(); got != want {
		t.Errorf("published as %s, want %s", got, want)
	}
	if !strings.Contains(string(d.Manifest), sum.String()) {
		t.Errorf("manifest %s does not have the output, %s", d.Manifest, sum)
	}
	f, err := os.Open(result(out).Receipt)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	receipt, err := attest.ReadReceipt(f)
	if err != nil || len(receipt.Runs) != 1 {
		t.Fatalf("%d runs in the receipt: %v", len(receipt.Runs), err)
	}
	statement, err := attest.ParseStatement(receipt.Runs[0].Payload)
	if err != nil {
		t.Fatal(err)
	}
	account, err := statement.JobRun()
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := digest.Parse(d.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]attest.ResourceDescriptor{attest.Published("counts", "oci:"+host+"/words:v1", pushed)}, account.Published); diff != "" {
		t.Errorf("the signed account says (-pushed +signed)\n%s", diff)
	}
}
