package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/imagespec"
	"arch.network/builder/source/unpack"
)

// Where others can write, they could change a download after it was checked.
func TestPartialDirectoryOfOthers(t *testing.T) {
	s := serve(t, map[string][]byte{"/file": payload})
	in := input(t, s.URL+"/file#"+digest.Of(payload).SRI())
	for name, spoil := range map[string]func(dir string) error{
		"writable by all":       func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"writable by the group": func(dir string) error { return os.Chmod(dir, 0o770) },
		"another's": func(dir string) error {
			if os.Geteuid() != 0 {
				t.Skip("cannot run here: only root can give a directory away")
			}
			return os.Chown(dir, 12345, 12345)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			f.Partial = t.TempDir()
			if err := spoil(f.Partial); err != nil {
				t.Fatal(err)
			}
			_, err := f.Fetch(t.Context(), in, "", nil)
			if !strings.Contains(errText(err), "is not this user's alone") || hintOf(err) == "" {
				t.Errorf("error is %v, hint %q", err, hintOf(err))
			}
		})
	}
}

// elsewhere is a transport for which every host but those on loopback is the server.
func elsewhere(s *httptest.Server) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if !nearby(hostname(address)) {
			address = s.Listener.Addr().String()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
}

func TestNoRedirectToThisMachine(t *testing.T) {
	var asked atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer secret.Close()
	_, port, _ := net.SplitHostPort(secret.Listener.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "x.localhost.", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254"} {
		s := httptest.NewServer(http.RedirectHandler("http://"+host+":"+port+"/", http.StatusFound))
		f := newFetcher(t)
		f.HTTP = &http.Client{Transport: elsewhere(s)}
		_, err := f.Fetch(t.Context(), input(t, "http://example.org/file#"+digest.Of(payload).SRI()), "", nil)
		if !strings.Contains(errText(err), "which is this machine or one beside it") {
			t.Errorf("%s: error is %v", host, err)
		}
		s.Close()
	}
	if asked.Load() != 0 {
		t.Errorf("a server on this machine was asked")
	}
}

// A name may stand for an address of this machine; a proxy may be there.
func TestDialAfterRedirect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	for _, c := range []struct {
		name, to, want string
	}{
		{"sent there", address, "is this machine or one beside it"},
		{"the proxy for it", "example.org:80", ""},
		{"not sent on", "", ""},
	} {
		ctx := t.Context()
		if c.to != "" {
			ctx = context.WithValue(ctx, sentOn{}, c.to)
		}
		conn, err := dial(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		if c.want == "" && err != nil || !strings.Contains(errText(err), c.want) {
			t.Errorf("%s: error is %v", c.name, err)
		}
	}
}

// A registry whose greeting, token or refusal never ends, or holds what a terminal would obey.
func TestRegistryThatTalksWithoutEnd(t *testing.T) {
	endless := func(w http.ResponseWriter) {
		block := make([]byte, 64<<10)
		for i := range block {
			block[i] = 0x1b
		}
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	for name, handler := range map[string]func(http.ResponseWriter, *http.Request){
		"greeting": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				endless(w)
			}
			http.NotFound(w, r)
		},
		"refusal": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			endless(w)
		},
		"token": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				endless(w)
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(handler))
			defer s.Close()
			f := newFetcher(t)
			_, err := f.Fetch(t.Context(), input(t, strings.TrimPrefix(s.URL, "http://")+"/x@"+digest.Of(payload).String()), "", nil)
			if err == nil || len(errText(err)) > 4096 || strings.Contains(errText(err), "\x1b") {
				t.Errorf("error of %d bytes: %.300q", len(errText(err)), err)
			}
		})
	}
}

// What is larger than a manifest may be, or than its descriptor says, is not received to its end.
func TestRegistrySendsTooMuch(t *testing.T) {
	var sent atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		block := make([]byte, 64<<10)
		for range 1 << 10 {
			n, err := w.Write(block)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	defer s.Close()
	f := newFetcher(t)
	_, err := f.Fetch(t.Context(), input(t, strings.TrimPrefix(s.URL, "http://")+"/x@"+digest.Of(payload).String()), "", nil)
	if !strings.Contains(errText(err), "larger than the limit of 4194304 bytes") {
		t.Errorf("error is %v", err)
	}
}

func TestHintsAreSmall(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/pins/") {
			http.NotFound(w, r)
			return
		}
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}))
	defer s.Close()
	f := newFetcher(t)
	f.Mirrors = []string{s.URL}
	if d, ok := f.hint(t.Context(), "go:example.com/m@v1.0.0"); ok {
		t.Errorf("the hint is %s", d)
	}
}

func TestAmbiguousManifests(t *testing.T) {
	const (
		d    = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		conf = `"config":{"mediaType":"` + imagespec.MediaTypeConfig + `","digest":"` + d + `","size":0}`
	)
	for name, c := range map[string]struct {
		text string
		bad  bool
	}{
		"plain":                 {`{"schemaVersion":2,` + conf + `,"layers":[],"annotations":{"Layers":"1","layers":"2"}}`, false},
		"two lists of layers":   {`{"schemaVersion":2,` + conf + `,"layers":[],"layers":[]}`, true},
		"another case":          {`{"schemaVersion":2,` + conf + `,"layers":[],"Layers":[]}`, true},
		"only another case":     {`{"schemaVersion":2,` + conf + `,"LAYERS":[]}`, true},
		"Kelvin and long s":     {`{"schemaVersion":2,` + conf + `,"layer\u017f":[]}`, true},
		"two digests":           {`{"schemaVersion":2,"config":{"mediaType":"` + imagespec.MediaTypeConfig + `","digest":"` + d + `","digest":"` + d + `","size":0},"layers":[]}`, true},
		"two platforms":         {`{"schemaVersion":2,"manifests":[{"digest":"` + d + `","platform":{"os":"linux","OS":"linux"}}]}`, true},
		"layer of another case": {`{"schemaVersion":2,` + conf + `,"layers":[{"mediatype":"application/vnd.oci.image.layer.v1.tar","digest":"` + d + `"}]}`, true},
	} {
		_, err := imagespec.Parse([]byte(c.text))
		if (err != nil) != c.bad || c.bad && !strings.Contains(errText(err), "readers differ in what that means") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := imagespec.ParseConfiguration([]byte(`{"rootfs":{"type":"layers","diff_ids":[],"diff_IDs":[]}}`), 0); err == nil {
		t.Errorf("a configuration with two lists is accepted")
	}
}

func TestGitIsTold(t *testing.T) {
	for url, want := range map[string]string{
		"https://example.org/r": "https", "http://example.org/r": "http:https", "file:///r": "file",
		"ext::sh -c x": "none", "ext::https://x": "none", "-x": "none", "": "none",
	} {
		r := &repository{f: newFetcher(t), git: "git", dir: t.TempDir(), url: url}
		cmd := r.command(t.Context(), "fetch")
		env, args := strings.Join(cmd.Env, "\n")+"\n", strings.Join(cmd.Args, " ")
		if !strings.Contains(env, "\nGIT_ALLOW_PROTOCOL="+want+"\n") {
			t.Errorf("%q: %s", url, env)
		}
		if !strings.Contains(args, "-c http.lowSpeedLimit=1 -c http.lowSpeedTime=60") {
			t.Errorf("a server may be silent for ever: %s", args)
		}
	}
}

// What git starts ends with git: git-remote-http would go on downloading.
func TestGitEndsWithItsChildren(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "alive")
	script := filepath.Join(dir, "git")
	// Its child holds the write end of a pipe for as long as it lives.
	put(t, script, []byte("#!/bin/sh\nsleep 1000 >&3 &\necho started >&3\nwait\n"))
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &repository{f: newFetcher(t), git: script, dir: dir, url: "https://example.org/" + pipe}
	cmd := r.command(ctx, "fetch")
	cmd.ExtraFiles = []*os.File{to}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	to.Close()
	line := make([]byte, len("started\n"))
	if _, err := io.ReadFull(from, line); err != nil {
		t.Fatal(err)
	}
	cancel()
	cmd.Wait()
	from.SetReadDeadline(time.Now().Add(30 * time.Second)) // a bound of failure, not of success
	if rest, err := io.ReadAll(from); err != nil {
		t.Errorf("after git was ended its child lives: %q, %v", rest, err)
	}
}

const offlineEnv = "ARCH_TEST_OFFLINE_PLAN"

// offlinePlan is what TestOfflineOpensNoSocket has its child fetch.
type offlinePlan struct {
	Inputs  []manifest.BuildInput
	Archive string
	Base    string
	Missing manifest.BuildInput
}

// Offline means that the kernel is never asked for a socket, whether all inputs are found or not.
func TestOfflineOpensNoSocket(t *testing.T) {
	if plan := os.Getenv(offlineEnv); plan != "" {
		fetchOffline(t, plan)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("cannot run here: strace is not installed")
	}
	w := newWorld(t)
	plan := offlinePlan{Archive: t.TempDir(), Base: files(t, map[string]string{"src/a": "1"}), Missing: input(t, "https://example.org/x#"+digest.Of(payload).SRI())}
	plan.Inputs = []manifest.BuildInput{{Name: "src", Path: "src", Mount: "/src"}}
	for _, in := range w.refs {
		plan.Inputs = append(plan.Inputs, in)
	}
	if err := w.f.Export(t.Context(), plan.Inputs, plan.Base, plan.Archive); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	file, trace := filepath.Join(t.TempDir(), "plan"), filepath.Join(t.TempDir(), "trace")
	put(t, file, data)
	cmd := exec.Command(strace, "-f", "-qq", "-o", trace, "-e", "trace=socket,connect,execve", "-e", "signal=none", os.Args[0], "-test.run=^TestOfflineOpensNoSocket$")
	cmd.Env = append(os.Environ(), offlineEnv+"="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "PTRACE") || strings.Contains(string(out), "ptrace") {
			t.Skipf("cannot run here: processes cannot be traced: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(calls), "execve(") {
		t.Fatalf("nothing was traced: %q", calls)
	}
	for line := range strings.Lines(string(calls)) {
		if strings.Contains(line, "socket(") || strings.Contains(line, "connect(") {
			t.Errorf("offline, but: %s", line)
		}
	}
}

func fetchOffline(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var plan offlinePlan
	if err := json.Unmarshal(data, &plan); err != nil {
		t.Fatal(err)
	}
	f := newFetcher(t)
	f.Offline, f.Archives, f.Mirrors, f.GoProxy = true, []string{plan.Archive}, []string{"https://mirror.example.org"}, "https://proxy.example.org"
	if _, err := f.FetchAll(t.Context(), plan.Inputs, plan.Base); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Fetch(t.Context(), plan.Missing, "", nil); !strings.Contains(errText(err), "is missing") {
		t.Errorf("error is %v", err)
	}
	if _, err := f.Resolve(t.Context(), "registry.example.org/x:1", ""); err == nil {
		t.Errorf("a tag was resolved")
	}
}

// A module zip is opened before its hash is known: what a proxy sends must not fill the memory.
func TestCrowdedModuleZip(t *testing.T) {
	header := append([]byte("PK\x01\x02"), make([]byte, 42)...)
	crowded := bytes.Repeat(header, unpack.MaxZipDirectory/len(header)+10_000)
	end := append([]byte("PK\x05\x06"), make([]byte, 18)...)
	binary.LittleEndian.PutUint32(end[12:], uint32(len(crowded)))
	s := serve(t, map[string][]byte{"/example.com/m/@v/v1.0.0.zip": append(crowded, end...)})
	f := newFetcher(t)
	f.GoProxy = s.URL
	_, err := f.Fetch(t.Context(), input(t, "go:example.com/m@v1.0.0#"+h1(digest.Of(payload))), "", nil)
	if !strings.Contains(errText(err), "archive exceeds the limit of 67108864 bytes of zip directory") {
		t.Errorf("error is %v", err)
	}
}
