package canonical

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
)

// The samples of RFC 8785, appendix B, by their IEEE 754 bits.
func TestAppendFloatSamples(t *testing.T) {
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0",
		0x8000000000000000: "0",
		0x0000000000000001: "5e-324",
		0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308",
		0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992",
		0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22",
		0x44b52d02c7e14af6: "1e+23",
		0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000",
		0x444b1ae4d6e2ef4f: "999999999999999900000",
		0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7",
		0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332",
		0x41b3de4355555554: "333333333.33333325",
		0x41b3de4355555555: "333333333.3333333",
		0x41b3de4355555556: "333333333.3333334",
		0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333",
		0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		if diff := cmp.Diff(want, string(appendFloat(nil, math.Float64frombits(bits)))); diff != "" {
			t.Errorf("%#016x (-want +got):\n%s", bits, diff)
		}
	}
}

// 400,000 doubles from a fixed seed, of every kind there is, are written as gowebpki/jcs writes them, and read back.
func TestAppendFloatLikeJCS(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8785, 2020))
	kinds := []func() float64{
		func() float64 { return math.Float64frombits(rnd.Uint64()) },                             // any exponent
		func() float64 { return float64(rnd.Int64N(1<<54)-1<<53) / float64(rnd.IntN(1000)+1) },   // as people write
		func() float64 { return math.Float64frombits(math.Float64bits(pow10(rnd)) + step(rnd)) }, // where the layout changes
		func() float64 { return float64(rnd.Int64()) },                                           // integers
	}
	for i := range 400_000 {
		f := kinds[i%len(kinds)]()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		want, err := jcs.NumberToJSON(f)
		if err != nil {
			t.Fatalf("jcs: %v", err)
		}
		got := string(appendFloat(nil, f))
		if got != want {
			t.Fatalf("%#016x: got %s, want %s", math.Float64bits(f), got, want)
		}
		if back, err := strconv.ParseFloat(got, 64); err != nil || back != f {
			t.Fatalf("%s reads back as %v (%v), want %v", got, back, err, f)
		}
	}
}

// pow10 returns a power of ten, most often one near which ECMAScript changes the layout.
func pow10(rnd *rand.Rand) float64 {
	e := rnd.IntN(600) - 300
	if rnd.IntN(2) == 0 {
		e = rnd.IntN(34) - 10
	}
	return math.Pow(10, float64(e))
}

// step returns a small distance between neighbouring doubles, modulo 2^64.
func step(rnd *rand.Rand) uint64 { return uint64(rnd.IntN(9) - 4) }
