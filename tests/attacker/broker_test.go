package attacker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/runner/broker"
	"arch.network/tests/attacker"
)

// testByBroker signs the attacker, so that a broker runs it as somebody's job: an image, with the token in its input.
func testByBroker(t *testing.T, d driver) {
	s := newScene(t)
	key, err := identity.Generate(identity.Ed25519, nil)
	must(t, err)
	content := map[digest.SHA256][]byte{}
	client := startBroker(t, d, key)
	s.targets.Shared, s.targets.SetUID, s.targets.FileCaps, s.targets.Scratch = "", "", "", "/tmp"
	j := &manifest.Job{
		APIVersion: manifest.APIVersion, Kind: "Job", Metadata: manifest.Metadata{Name: "attack", Expires: nextYear()},
		Spec: manifest.JobSpec{
			Image: imageOf(t, program(t), content), Runtime: manifest.RuntimeOCI, Args: []string{"all"}, Timeout: "3m",
			Env:         map[string]string{attacker.TargetsVariable: s.targets.Env()[len(attacker.TargetsVariable)+1:]},
			Inputs:      map[string]manifest.Ref{"data": treeOf(t, s.input, content)},
			Resources:   manifest.JobResources{Memory: "1Gi", Processes: 256},
			Determinism: manifest.Determinism{Clock: manifest.ClockReal, Randomness: manifest.RandomReal},
		},
	}
	var out bytes.Buffer
	response, err := client.Run(t.Context(), broker.Request{
		Envelope: signed(t, j, key), Stdout: &out, Stderr: &out,
		Content: func(_ context.Context, item broker.Item) (io.ReadCloser, error) {
			data, ok := content[item.Digest]
			if !ok {
				return nil, fmt.Errorf("%s: %w", item.Digest, fs.ErrNotExist)
			}
			return io.NopCloser(bytes.NewReader(data)), nil
		},
	})
	if err != nil || !response.Result.OK() {
		t.Fatalf("result: %+v, %v\n%s", response.Result, err, out.String())
	}
	reports, err := attacker.ReadReports(&out)
	must(t, err)
	judge(t, reports)
	s.unharmed(t)
}

func nextYear() string {
	return time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second).Format(time.RFC3339)
}

// startBroker serves a broker that lets key issue jobs.
func startBroker(t *testing.T, d driver, key *identity.Key) *broker.Client {
	t.Helper()
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "node", Expires: nextYear()},
		Spec: manifest.TrustRootSpec{
			Version: 1, Principals: []manifest.Principal{{Name: "alice", Keys: []string{key.Public().String()}}},
			Roles: map[string]manifest.TrustGroup{},
		},
	}
	for _, role := range []string{manifest.RoleGovernance, manifest.RolePolicy, manifest.RoleJob} {
		root.Spec.Roles[role] = manifest.TrustGroup{Threshold: 1, Of: []string{"alice"}}
	}
	policy := &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: nextYear()},
		Spec: manifest.PolicySpec{
			Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob}}, Runtimes: []manifest.Runtime{manifest.RuntimeOCI},
			Capabilities: manifest.PolicyCapabilities{Allow: []string{"clock:real", "randomness:real"}},
		},
	}
	dir := openDir(t)
	o := broker.Options{
		Runner: d.new(t), State: filepath.Join(dir, "state"), Users: []uint32{uint32(os.Geteuid())},
		Files: broker.Files{TrustRoot: filepath.Join(dir, "root.json"), Policy: filepath.Join(dir, "policy.json")},
	}
	must(t, os.WriteFile(o.Files.TrustRoot, signed(t, root, key), 0o644))
	must(t, os.WriteFile(o.Files.Policy, signed(t, policy, key), 0o644))
	t.Cleanup(func() { nar.RemoveAll(o.State) }) // trees in it are read-only
	server, err := broker.New(t.Context(), o)
	must(t, err)
	socket := filepath.Join(dir, "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		must(t, server.Close())
	})
	return &broker.Client{Path: socket}
}

func signed(t *testing.T, doc manifest.Document, key *identity.Key) []byte {
	t.Helper()
	env, err := manifest.Wrap(doc)
	must(t, err)
	must(t, env.Add(t.Context(), key))
	return env.Marshal()
}

// imageOf makes an image of one program, which starts in /tmp.
func imageOf(t *testing.T, path string, content map[digest.SHA256][]byte) manifest.Ref {
	t.Helper()
	put := func(data []byte) (digest.SHA256, int) {
		content[digest.Of(data)] = data
		return digest.Of(data), len(data)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	must(t, w.WriteHeader(&tar.Header{Name: "bin/attack", Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}))
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	sum, size := put(layer.Bytes())
	config, configSize := put(fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Entrypoint":["/bin/attack"],"WorkingDir":"/tmp"},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		runtime.GOARCH, sum))
	image, _ := put(fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, config, configSize, sum, size))
	return manifest.Ref{Scheme: manifest.RefOCI, Location: "example.org/attack", Digest: image}
}

// treeOf makes an input of a file.
func treeOf(t *testing.T, path string, content map[digest.SHA256][]byte) manifest.Ref {
	t.Helper()
	var archive bytes.Buffer
	must(t, nar.Dump(t.Context(), &archive, path, nar.Options{}))
	content[digest.Of(archive.Bytes())] = archive.Bytes()
	return manifest.Ref{Scheme: manifest.RefTree, Location: "data", Digest: digest.Of(archive.Bytes())}
}
