package manifest

import "testing"

func BenchmarkReadYAML(b *testing.B) {
	src := readFile(b, "testdata/accepted/job-full.yaml")
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if _, err := ReadYAML(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadJSON(b *testing.B) {
	payload, err := Canonical(mustRead(b, string(readFile(b, "testdata/accepted/job-full.yaml"))))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := ReadJSON(payload); err != nil {
			b.Fatal(err)
		}
	}
}
