package binary

import "testing"

// BenchmarkDecode decodes a program of the Go compiler of 2.6 MB.
func BenchmarkDecode(b *testing.B) {
	module := compileGo(b)
	b.SetBytes(int64(len(module)))
	for b.Loop() {
		if _, err := Decode(module, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode encodes it.
func BenchmarkEncode(b *testing.B) {
	module := compileGo(b)
	m, err := Decode(module, Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(module)))
	for b.Loop() {
		m.Encode()
	}
}
