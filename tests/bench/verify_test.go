package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"

	"golang.org/x/sys/unix"
)

// BenchmarkVerify verifies an artifact from the bytes of its receipt to the report, everything included: reading the
// receipt, compiling the trust root, signatures, parsing, comparing, hashing. It counts CPU time of the process, because
// the machine may be busy. "sha256-%" is the share of crypto/sha256 over the artifact; "rest-cpu-ms" is what remains; both
// are of the sums: kernels that count CPU time by their clock's tick, of up to 4 ms, are right on average only. "sha256-wall-%" is the median share by the clock.
func BenchmarkVerify(b *testing.B) {
	for _, c := range []struct {
		name                   string
		size, signers, depends int
	}{
		{"small/1-of-5/3-dependencies", 1 << 10, 1, 3},
		{"small/3-of-5/200-dependencies", 1 << 10, 3, 200},
		{"100MB/3-of-5/200-dependencies", 100_000_000, 3, 200},
	} {
		b.Run(c.name, func(b *testing.B) {
			benchmarkVerify(b, newVerifyFixture(b, c.size, c.signers, c.depends))
		})
	}
}

func benchmarkVerify(b *testing.B, f *verifyFixture) {
	var all, hashing time.Duration
	var wall, share []time.Duration
	for b.Loop() {
		start, clock := cpuTime(b), time.Now()
		f.hashing, f.hashed = 0, 0
		f.verify(b)
		took := time.Since(clock)
		wall, share = append(wall, took), append(share, 1e6*f.hashed/took)
		all += cpuTime(b) - start
		hashing += f.hashing
	}
	runs := float64(len(wall))
	b.ReportMetric(100*float64(hashing)/float64(max(all, 1)), "sha256-%")
	b.ReportMetric(float64(median(share))/1e4, "sha256-wall-%")
	b.ReportMetric(float64(all-hashing)/runs/1e6, "rest-cpu-ms")
	b.ReportMetric(float64(all)/runs, "cpu-ns/verify")
	b.ReportMetric(float64(median(wall)), "wall-ns/verify")
	b.ReportMetric(0, "ns/op") // the clock of the benchmark counts what neighbours do, too
}

// cpuTime returns the CPU time that the process has used.
func cpuTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// verifyFixture is an artifact with its receipt, of which signers of five builders are needed and made it.
type verifyFixture struct {
	artifact []byte
	receipt  []byte
	root     *manifest.TrustRoot
	signers  int
	at       time.Time
	hashing  time.Duration // CPU time of hashing in the last verify
	hashed   time.Duration // the same by the clock
}

// verify is what `arch verify` does between reading its files and printing.
func (f *verifyFixture) verify(b *testing.B) {
	receipt, err := attest.ReadReceipt(bytes.NewReader(f.receipt))
	if err != nil {
		b.Fatal(err)
	}
	trust, err := attest.NewTrust(f.root)
	if err != nil {
		b.Fatal(err)
	}
	r, err := attest.Verify(b.Context(), attest.VerifyInput{
		Artifact: attest.Artifact{Name: "artifact", Hash: func(_ context.Context, form attest.Form) (digest.SHA256, error) {
			if form != attest.FormFile {
				return digest.SHA256{}, attest.ErrNoForm
			}
			start, clock := cpuTime(b), time.Now()
			defer func() { f.hashing, f.hashed = cpuTime(b)-start, time.Since(clock) }()
			return digest.SHA256(sha256.Sum256(f.artifact)), nil
		}},
		Receipt: receipt, Trust: trust, At: f.at, Rebuilds: f.signers, Operators: f.signers,
	})
	if err != nil || !r.OK {
		b.Fatal(err, r.Text())
	}
}

func newVerifyFixture(b *testing.B, size, signers, depends int) *verifyFixture {
	f := &verifyFixture{artifact: offHeap(b, size), signers: signers, at: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	rand.NewChaCha8([32]byte{}).Read(f.artifact)
	keys := f.makeRoot(b, 5)
	claim, err := attest.NewClaim(benchBuild(), benchDependencies(depends), []attest.Output{{Name: "artifact", File: digest.Of(f.artifact)}})
	if err != nil {
		b.Fatal(err)
	}
	receipt := &attest.Receipt{}
	for i, key := range keys[:signers] {
		provenance, err := attest.NewProvenance(claim, attest.Run{
			Builder: attest.Builder{ID: attest.BuilderHermetic}, InvocationID: fmt.Sprint(i), Started: f.at, Finished: f.at,
			Variations:  attest.Variations{Builds: 2, Equal: true, Factors: []string{"time"}},
			Confinement: json.RawMessage(`{"driver":"namespace","enforced":["network-none"]}`),
		})
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range []*attest.Statement{claim, provenance} {
			f.sign(b, receipt, s, key)
		}
	}
	var out bytes.Buffer
	if _, err := receipt.WriteTo(&out); err != nil {
		b.Fatal(err)
	}
	f.receipt = out.Bytes()
	return f
}

// offHeap returns memory that the garbage collector does not count: `arch verify` reads the artifact through small buffers,
// and 100 MB of live heap would let another 100 MB be touched for the first time before anything is used again.
func offHeap(b *testing.B, size int) []byte {
	b.Helper()
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := unix.Munmap(memory); err != nil {
			b.Error(err)
		}
	})
	return memory
}

// makeRoot sets a trust root of n builders, each its own operator.
func (f *verifyFixture) makeRoot(b *testing.B, n int) []*identity.Key {
	var keys []*identity.Key
	var names []string
	f.root = &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "bench", Expires: "2027-01-01T00:00:00Z"},
		Spec:     manifest.TrustRootSpec{Version: 1},
	}
	for i := range n {
		key, err := identity.Generate(identity.Ed25519, rand.NewChaCha8([32]byte{byte(i)}))
		if err != nil {
			b.Fatal(err)
		}
		name := fmt.Sprintf("builder-%d", i)
		keys, names = append(keys, key), append(names, name)
		f.root.Spec.Principals = append(f.root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{key.Public().String()}})
	}
	f.root.Spec.Roles = map[string]manifest.TrustGroup{
		manifest.RoleGovernance: {Threshold: n, Of: names}, manifest.RoleBuilder: {Threshold: f.signers, Of: names},
	}
	return keys
}

func (f *verifyFixture) sign(b *testing.B, receipt *attest.Receipt, s *attest.Statement, key *identity.Key) {
	env, err := s.Sign(b.Context(), key)
	if err != nil {
		b.Fatal(err)
	}
	receipt.Add(env)
}

func benchBuild() *manifest.Build {
	return &manifest.Build{
		APIVersion: manifest.APIVersion, Kind: "Build", Metadata: manifest.Metadata{Name: "artifact"},
		Spec: manifest.BuildSpec{
			Platform: "linux/amd64", SourceDateEpoch: 1,
			Inputs: []manifest.BuildInput{{Name: "source", Mount: "/src", Ref: manifest.Ref{
				Scheme: manifest.RefTree, Location: "source", Digest: digest.Of([]byte("source")),
			}}},
			Steps:   []manifest.BuildStep{{Argv: []string{"/src/make"}}},
			Outputs: []manifest.BuildOutput{{Name: "artifact", Path: "/build/artifact", Type: manifest.OutputFile}},
		},
	}
}

func benchDependencies(n int) []attest.ResourceDescriptor {
	source := benchBuild().Spec.Inputs[0].Ref
	list := []attest.ResourceDescriptor{{URI: source.String(), Digest: map[string]string{"sha256": source.Digest.Hex()}}}
	for i := range n - 1 {
		uri := fmt.Sprintf("https://proxy.example.org/some/module-%03d/@v/v1.2.3.zip", i)
		list = append(list, attest.ResourceDescriptor{
			Name: fmt.Sprintf("module-%03d", i), URI: uri, MediaType: "application/zip",
			Digest: map[string]string{"sha256": digest.Of([]byte(uri)).Hex()},
		})
	}
	return list
}
