package quorum

import "testing"

func BenchmarkCompile(b *testing.B) {
	root := rootFor(b, of(1, "both"))
	for b.Loop() {
		if _, err := Compile(root); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	r, err := Compile(rootFor(b, of(1, "both")))
	if err != nil {
		b.Fatal(err)
	}
	keys := pub(b, "alice", "carol", "dave")
	for b.Loop() {
		if d := r.Evaluate("job", keys, day(10), Options{}); !d.OK {
			b.Fatal(d)
		}
	}
}
