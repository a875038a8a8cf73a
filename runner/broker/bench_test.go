package broker

import (
	"path/filepath"
	"testing"
)

// BenchmarkAdmit verifies two signatures and judges a job.
func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b, exits)
	files := Files{filepath.Join(w.dir, "root.json"), filepath.Join(w.dir, "policy.json")}
	t, err := files.load(now)
	if err != nil {
		b.Fatal(err)
	}
	envelope := sign(b, newJob(), "alice", "bob")
	for b.Loop() {
		if _, err := admit(envelope, t, nil, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTrust reads and verifies the trust root and the policy, as for each job.
func BenchmarkTrust(b *testing.B) {
	w := newWorld(b, exits)
	files := Files{filepath.Join(w.dir, "root.json"), filepath.Join(w.dir, "policy.json")}
	for b.Loop() {
		if _, err := files.load(now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkJob is everything but the job itself: connect, verify, derive, answer.
func BenchmarkJob(b *testing.B) {
	w := newWorld(b, exits)
	envelope := sign(b, newJob(), "alice", "bob")
	for b.Loop() {
		if _, err := w.run(envelope); err != nil {
			b.Fatal(err)
		}
	}
}
