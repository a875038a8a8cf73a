package binary

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// FuzzDecode shows that every module that is accepted encodes, decodes and reads instruction by instruction.
func FuzzDecode(f *testing.F) {
	f.Add(module())
	f.Add(oneFunction("\x01\x02\x7f\x20\x01\x04\x40\x0c\x00\x0b\x0b"))
	f.Add(module("\x01\x04\x01\x60\x00\x00", "\x02\x07\x01\x01a\x01b\x00\x00", "\x04\x04\x01\x70\x00\x01", "\x08\x01\x00", "\x09\x07\x01\x00\x41\x00\x0b\x01\x00"))
	f.Add(module("\x05\x03\x01\x00\x01", "\x06\x06\x01\x7f\x01\x41\x7f\x0b", "\x07\x09\x02\x01m\x02\x00\x01g\x03\x00", "\x0b\x08\x01\x01\x05hello"))
	f.Add(assemble(f, "testdata/features.wat"))
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := Limits{Elements: 1 << 12, Locals: 1 << 12, Arity: 100}
		m, err := Decode(data, limits)
		if err != nil {
			return
		}
		roundTrip(t, m)
		for _, c := range m.Codes {
			end, s := 0, ReadInstrs(c.Body)
			for in := new(Instr); s.Next(in); end = in.End {
				if in.Start != end {
					t.Fatalf("instruction at %d, after the end of one at %d", in.Start, end)
				}
			}
			if end != len(c.Body) {
				t.Errorf("read %d of %d bytes", end, len(c.Body))
			}
		}
	})
}

// TestAgreesWithWABT changes bytes of a valid module at random: what wasm-validate accepts is accepted here, so that nothing is
// refused but for limits and for what wasm-validate, which knows types, refuses as well.
func TestAgreesWithWABT(t *testing.T) {
	path, err := exec.LookPath("wasm-validate")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	file := filepath.Join(t.TempDir(), "module.wasm")
	random := rand.New(rand.NewPCG(1, 2))
	both := 0
	for _, source := range []string{"features", "loop"} {
		whole := assemble(t, "testdata/"+source+".wat")
		for range 200 {
			data := mutate(random, whole)
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, own := Decode(data, Limits{})
			if text, err := exec.CommandContext(t.Context(), path, file).CombinedOutput(); err == nil && own != nil {
				t.Errorf("%x:\naccepted by wasm-validate: %s, here: %v", data, text, own)
			} else if err == nil {
				both++
			}
		}
	}
	if both < 30 {
		t.Errorf("only %d modules were valid: the test shows little", both)
	}
}

func mutate(random *rand.Rand, whole []byte) []byte {
	data := append([]byte(nil), whole...)
	for range 1 + random.IntN(2) {
		at := random.IntN(len(data))
		switch random.IntN(3) {
		case 0:
			data[at] = byte(random.Uint32())
		case 1:
			data[at] ^= 1 << random.IntN(8)
		case 2:
			data[at]++
		}
	}
	return data
}
