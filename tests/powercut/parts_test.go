package powercut_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"arch.network/agent/policy"
	"arch.network/agent/replay"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger/durable"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/manifest"
	"arch.network/builder/store"
	"arch.network/tests/powercut"

	"golang.org/x/sys/unix"
)

// part is something that keeps files of its own.
type part struct {
	name string
	// prepare makes what is there before. Nil: nothing.
	prepare func(dir string) error
	// work is what a process does in a directory; say tells of what it was promised.
	work func(dir string, say func(string)) error
	// check holds what was said against what a power cut has left, and lets the next process go on.
	check func(dir string, said map[string]bool) error
}

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func parts() []part {
	return []part{
		{"a key file", nil, workKey, checkKey},
		{"keys of a ledger", nil, workLedgerKeys, checkLedgerKeys},
		{"an archive file", prepareFile, workFile, checkFile},
		{"spent nonces", nil, workNonces, checkNonces},
		{"the state of policies", preparePolicy, workPolicy, checkPolicy},
		{"the store", nil, workStore, checkStore},
	}
}

func key(name string) (*identity.Key, error) {
	seed := sha256.Sum256([]byte(name))
	return identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
}

// workKey makes a key, which says that it is there: others may trust it from then on.
func workKey(dir string, say func(string)) error {
	k, err := key("node")
	if err == nil {
		err = k.WriteFile(filepath.Join(dir, "keys", "node.key"), identity.WriteOptions{})
	}
	if err == nil {
		say(k.Public().String())
	}
	return err
}

func checkKey(dir string, said map[string]bool) error {
	path := filepath.Join(dir, "keys", "node.key")
	k, err := identity.Load(context.Background(), path, identity.LoadOptions{})
	if errors.Is(err, os.ErrNotExist) && len(said) == 0 {
		return workKey(dir, func(string) {})
	}
	if err != nil || len(said) > 0 && !said[k.Public().String()] {
		return fmt.Errorf("the key: %w", err)
	}
	return nil
}

func workLedgerKeys(dir string, say func(string)) error {
	k, err := notekey.Generate("node.example/ledger", zeros{})
	if err == nil {
		err = k.WriteFile(filepath.Join(dir, "ledger.key"))
	}
	if err == nil {
		say(k.LogVKeys()[0])
	}
	return err
}

// zeros is no randomness at all.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func checkLedgerKeys(dir string, said map[string]bool) error {
	k, err := notekey.Load(filepath.Join(dir, "ledger.key"))
	if errors.Is(err, os.ErrNotExist) && len(said) == 0 {
		return workLedgerKeys(dir, func(string) {})
	}
	if err != nil || len(said) > 0 && !said[k.LogVKeys()[0]] {
		return fmt.Errorf("the keys: %w", err)
	}
	return nil
}

// Contents of an archive file: it is replaced by another one, as arch archive export does.
var contents = []string{strings.Repeat("old ", 1000), strings.Repeat("newer ", 1000)}

func prepareFile(dir string) error {
	return os.WriteFile(filepath.Join(dir, "kept.arch.tar"), []byte(contents[0]), 0o644)
}

func workFile(dir string, say func(string)) error {
	err := durable.WriteFrom(filepath.Join(dir, "kept.arch.tar"), io.MultiReader(strings.NewReader(contents[1][:3000]), strings.NewReader(contents[1][3000:])), 0o644)
	if err == nil {
		say("written")
	}
	return err
}

func checkFile(dir string, said map[string]bool) error {
	data, err := os.ReadFile(filepath.Join(dir, "kept.arch.tar"))
	if err != nil {
		return err
	}
	if got := string(data); got != contents[1] && (said["written"] || got != contents[0]) {
		return fmt.Errorf("the file has %d bytes, which are neither the old ones nor the new ones", len(got))
	}
	return nil
}

// spending is how many nonces are spent, in two lives of a window.
const spending = 6

func nonce(i int) replay.Entry {
	return replay.Entry{ID: digest.Of(fmt.Append(nil, i)), Owner: "user:alice", Nonce: fmt.Sprintf("nonce-%d", i), Expires: now.Add(time.Hour)}
}

func workNonces(dir string, say func(string)) error {
	for life := range 2 {
		w, err := replay.Open(replay.Options{Path: filepath.Join(dir, "nonces")})
		if err != nil {
			return err
		}
		for i := life * spending / 2; i < (life+1)*spending/2; i++ {
			if err := w.Spend(nonce(i), now); err != nil {
				return errors.Join(err, w.Close())
			}
			say(fmt.Sprint(i))
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	return nil
}

func checkNonces(dir string, said map[string]bool) error {
	w, err := replay.Open(replay.Options{Path: filepath.Join(dir, "nonces")})
	if err != nil {
		return err
	}
	defer w.Close()
	for i := range spending {
		err := w.Spend(nonce(i), now)
		if _, spent := errors.AsType[*replay.ReplayError](err); err != nil && !spent {
			return err
		} else if !spent && said[fmt.Sprint(i)] {
			return fmt.Errorf("nonce %d is accepted a second time", i)
		}
	}
	return nil
}

// document writes a document that alice has signed.
func document(path string, doc manifest.Document) error {
	alice, err := key("alice")
	if err != nil {
		return err
	}
	payload, err := manifest.Canonical(doc)
	if err != nil {
		return err
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	if err := env.Add(context.Background(), alice); err != nil {
		return err
	}
	return os.WriteFile(path, env.Marshal(), 0o600)
}

// preparePolicy puts a trust root and versions of a policy where they are read. They are somebody else's files.
func preparePolicy(dir string) error {
	alice, err := key("alice")
	if err != nil {
		return err
	}
	one := manifest.TrustGroup{Threshold: 1, Of: []string{"alice"}}
	errs := []error{document(filepath.Join(dir, "root"), &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "net", Expires: "2027-06-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{
			Version: 1, Principals: []manifest.Principal{{Name: "alice", Keys: []string{alice.Public().String()}}},
			Roles: map[string]manifest.TrustGroup{manifest.RoleGovernance: one, manifest.RolePolicy: one},
		},
	})}
	for v := range int64(3) {
		errs = append(errs, document(filepath.Join(dir, fmt.Sprint("policy-", v+1)), &manifest.Policy{
			APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Created: "2026-05-01T00:00:00Z", Expires: "2026-12-01T00:00:00Z"},
			Spec: manifest.PolicySpec{Version: v + 1, Runtimes: []manifest.Runtime{manifest.RuntimeWasm}},
		}))
	}
	return errors.Join(append(errs, os.Mkdir(filepath.Join(dir, "state"), 0o700))...)
}

// openPolicy reads a version of the policy, and returns the one that is in force.
func openPolicy(dir string, version int64) (int64, error) {
	k, err := policy.Open(policy.Options{
		TrustRoot: filepath.Join(dir, "root"), Policy: filepath.Join(dir, fmt.Sprint("policy-", version)), State: filepath.Join(dir, "state"), Now: func() time.Time { return now },
	})
	if err != nil {
		return 0, err
	}
	active, err := k.Current(now)
	if err != nil {
		return 0, err
	}
	return active.Policy().Spec.Version, nil
}

func workPolicy(dir string, say func(string)) error {
	for v := range int64(3) {
		if got, err := openPolicy(dir, v+1); err != nil || got != v+1 {
			return fmt.Errorf("version %d: %d, %w", v+1, got, err)
		}
		say(fmt.Sprint(v + 1))
	}
	return nil
}

func checkPolicy(dir string, said map[string]bool) error {
	last := int64(0)
	for v := range int64(3) {
		if said[fmt.Sprint(v+1)] {
			last = v + 1
		}
	}
	if last > 1 { // whoever brings back an old policy is refused
		if got, err := openPolicy(dir, last-1); err != nil || got < last {
			return fmt.Errorf("version %d was in force, and then %d: %w", last, got, err)
		}
	}
	for v := max(last, 1); v <= 3; v++ { // one after the other: nothing is passed over
		if got, err := openPolicy(dir, v); err != nil || got < v {
			return fmt.Errorf("version %d: %d, %w", v, got, err)
		}
	}
	return nil
}

func workStore(dir string, say func(string)) error {
	ctx := context.Background()
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer s.Close()
	blob, _, err := s.AddBlob(ctx, strings.NewReader(contents[0]), digest.SHA256{})
	if err != nil {
		return err
	}
	say("blob " + blob.Hex())
	tree, err := s.AddTreeFunc(ctx, func(d string) error {
		return errors.Join(os.Mkdir(filepath.Join(d, "sub"), 0o755), os.WriteFile(filepath.Join(d, "sub", "f"), []byte(contents[1]), 0o600))
	}, digest.SHA256{})
	if err != nil {
		return err
	}
	say("tree " + tree.Hex())
	for i := range 2 {
		if err := s.Remember("go", "key", fmt.Append(nil, i)); err != nil {
			return err
		}
		say(fmt.Sprint("record ", i))
	}
	if err := s.AddRoot("result", blob, tree); err != nil {
		return err
	}
	say("root")
	return nil
}

func checkStore(dir string, said map[string]bool) error {
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer s.Close()
	ctx := context.Background()
	if report, err := s.Verify(ctx, store.VerifyOptions{}); err != nil || !report.OK() {
		return fmt.Errorf("verify: %+v, %w", report.Damaged, err)
	}
	value, _, err := s.Recall("go", "key")
	if err != nil {
		return err
	}
	roots, err := s.Roots(ctx)
	if err != nil {
		return err
	}
	for word := range said {
		kind, rest, _ := strings.Cut(word, " ")
		d, _ := digest.ParseHex(rest)
		there := true
		switch kind {
		case "blob":
			_, there = s.BlobPath(d)
		case "tree":
			_, there = s.TreePath(d)
		case "record":
			there = string(value) >= rest
		case "root":
			there = len(roots) == 1
		}
		if !there {
			return fmt.Errorf("%s is lost", word)
		}
	}
	return nil
}

// sizeEnv limits how many bytes a file of a child may have: what would go beyond is written short, and what is written after that fails (EFBIG).
const sizeEnv = "ARCH_TEST_FSIZE"

// childEnv makes the test binary do the work of a part in a directory.
const childEnv = "ARCH_TEST_PART"

func TestMain(m *testing.M) {
	name, dir, ok := strings.Cut(os.Getenv(childEnv), "=")
	if !ok {
		os.Exit(m.Run())
	}
	if size, err := strconv.ParseUint(os.Getenv(sizeEnv), 10, 63); err == nil {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: size}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
	}
	for _, p := range parts() {
		if p.name != name {
			continue
		}
		if err := p.work(dir, func(word string) { fmt.Println(word) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(2)
}

// memoryDir needs no disk, since what a power cut leaves of one is made up.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "arch-part-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		exec.Command("chmod", "-R", "u+w", dir).Run()
		os.RemoveAll(dir)
	})
	return dir
}

// record follows a process that does the work of a part.
func (p part) record(t *testing.T, dir, size string, inject ...string) (trace *powercut.Trace, stderr string) {
	t.Helper()
	if p.prepare != nil {
		if err := p.prepare(dir); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+p.name+"="+dir, sizeEnv+"="+size)
	var errout bytes.Buffer
	cmd.Stderr = &errout
	trace, err := powercut.Record(dir, cmd, inject...)
	if errors.Is(err, powercut.ErrNoTracer) {
		t.Skipf("cannot run here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, errout.String())
	}
	if strings.Contains(errout.String(), "panic") {
		t.Fatal(errout.String())
	}
	return trace, errout.String()
}

// holds is what must be true of each image.
func (p part) holds(dir string) func(powercut.Image) error {
	return func(im powercut.Image) error {
		said := map[string]bool{}
		for line := range strings.Lines(im.Said) {
			if word, whole := strings.CutSuffix(line, "\n"); whole {
				said[word] = true
			}
		}
		return p.check(dir, said)
	}
}

// A power cut at any time takes nothing back that a part has promised, and the next process goes on; a part that forgot its syncs would be found.
func TestParts(t *testing.T) {
	for _, p := range parts() {
		t.Run(p.name, func(t *testing.T) {
			dir := memoryDir(t)
			trace, stderr := p.record(t, dir, "")
			if stderr != "" {
				t.Fatal(stderr)
			}
			list := trace.Images(1, powercut.Some(40))
			if err := powercut.Check(dir, list, p.holds(dir)); err != nil {
				t.Error(err)
			}
			forgetful, found := trace.Without(func(string) bool { return true })
			if !found {
				t.Fatal("nothing is synced")
			}
			if powercut.Check(dir, forgetful.Images(2, -1), p.holds(dir)) == nil {
				t.Error("without any sync nothing is lost")
			}
			t.Logf("%d images", len(list))
		})
	}
}

// partFaults are the ways in which a disk fails at a call. Short writes come from a limit to the size of files (shortWrites).
var partFaults = []string{
	"write:error=ENOSPC", "write:error=EIO", "fsync:error=EIO", "fdatasync:error=EIO", "syncfs:error=EIO", "renameat:error=EIO", "linkat:error=EIO", "mkdirat:error=ENOSPC",
	"read:error=EIO", "pread64:error=EIO", "openat:error=EMFILE", "openat:error=EROFS", "fchmod,fchmodat:error=EIO",
}

// Whatever call fails, in whatever way, what a part has promised is true, after a power cut, too.
func TestPartsWithFaults(t *testing.T) {
	step, all := 4, 0
	if powercut.Some(1) < 0 {
		step = 1
	}
	for at, p := range parts() {
		t.Run(p.name, func(t *testing.T) {
			failed := 0
			for i, fault := range partFaults {
				if step > 1 && (at+i)%3 != 0 {
					continue // another part has it
				}
				for when := 1 + i%step; when < 30; when += step {
					if when > 8 && step > 1 {
						break
					}
					dir := memoryDir(t)
					trace, stderr := p.record(t, dir, "", fmt.Sprintf("%s:when=%d", fault, when))
					if stderr != "" {
						failed++
					}
					if err := powercut.Check(dir, trace.Images(3, powercut.Some(3)), p.holds(dir)); err != nil {
						t.Errorf("%s:when=%d: %v", fault, when, err)
					}
				}
			}
			if t.Logf("%d times it said that something failed", failed); step == 1 && failed == 0 {
				t.Error("nothing has ever failed")
			}
			all += failed
		})
	}
	if all == 0 {
		t.Error("nothing has ever failed")
	}
}

// A write that is cut short is no write: whatever was promised before it is true, and what it left is in nobody's way.
func TestPartsWithShortWrites(t *testing.T) {
	step := 5
	if powercut.Some(1) < 0 {
		step = 1
	}
	sizes := []int{0, 1, 7, 40, 100, 150, 200, 300, 400, 500, 700, 1000, 2500, 3500, 4096, 5000}
	for i, p := range parts() {
		t.Run(p.name, func(t *testing.T) {
			failed := 0
			for at := i % step; at < len(sizes); at += step {
				dir := memoryDir(t)
				trace, stderr := p.record(t, dir, fmt.Sprint(sizes[at]))
				if stderr != "" {
					failed++
				}
				if err := powercut.Check(dir, trace.Images(4, powercut.Some(3)), p.holds(dir)); err != nil {
					t.Errorf("files of at most %d bytes: %v", sizes[at], err)
				}
			}
			if failed == 0 {
				t.Error("nothing was cut short")
			}
		})
	}
}
