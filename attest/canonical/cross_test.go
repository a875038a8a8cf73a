package canonical_test

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"arch.network/attest/canonical"
	"github.com/google/go-cmp/cmp"
	"github.com/gowebpki/jcs"
)

// Where gowebpki/jcs is right, that is but for integers that a double cannot hold, negative zero and underflow, it
// says the same of 20,000 documents from a fixed seed.
func TestTransformLikeJCS(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(1, 2))}
	for range 20_000 {
		in := []byte(g.value(0))
		want, err := jcs.Transform(in)
		if err != nil {
			t.Fatalf("jcs: %v\n%s", err, in)
		}
		got, err := canonical.Transform(in)
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Fatalf("(-jcs +ours):\n%s", diff)
		}
	}
}

// What gowebpki/jcs lets two inputs share, or takes without a word, is refused here.
func TestTransformUnlikeJCS(t *testing.T) {
	for in, want := range map[string]string{
		"9007199254740993": "9007199254740992",
		"-0":               "0",
		"1e-400":           "0",
	} {
		form, err := jcs.Transform([]byte(in))
		if err != nil {
			t.Fatalf("jcs: %v", err)
		}
		if diff := cmp.Diff(want, string(form)); diff != "" {
			t.Errorf("jcs has changed (-want +got):\n%s", diff)
		}
		if form, err := canonical.Transform([]byte(in)); err == nil {
			t.Errorf("%s became %s", in, form)
		}
	}
}

// The order of names is that of their UTF-16 code units, checked against the definition.
func TestOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	alphabet := []rune("aAz\"\\\x01\u007f\u0080é\u07ff\u0800\ud7ff\ue000\uf8ff\ufb33\uffff\U00010000\U0001F600\U0010FFFF")
	for range 3_000 {
		object := map[string]int{}
		for range 2 + rnd.IntN(12) {
			name := make([]rune, rnd.IntN(4))
			for i := range name {
				name[i] = alphabet[rnd.IntN(len(alphabet))]
			}
			object[string(name)] = rnd.IntN(10)
		}
		out, err := canonical.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		got := memberNames(t, out)
		want := slices.Clone(got)
		slices.SortFunc(want, func(a, b string) int {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

// memberNames reads the names of an object in their order, with encoding/json.
func memberNames(t *testing.T, object []byte) []string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(object))
	var names []string
	for i := 0; ; i++ {
		token, err := dec.Token()
		if err != nil {
			return names
		}
		if name, ok := token.(string); ok && i > 0 {
			names = append(names, name)
		}
	}
}

// generator writes JSON text with white space, escapes and spellings of every kind.
type generator struct{ *rand.Rand }

func (g generator) value(depth int) string {
	kinds := 7
	if depth > 4 {
		kinds = 5
	}
	switch g.IntN(kinds) {
	case 0:
		return []string{"true", "false", "null"}[g.IntN(3)]
	case 1:
		return strconv.FormatInt(g.Int64N(2*canonical.MaxInteger)-canonical.MaxInteger, 10)
	case 2, 3:
		return g.number()
	case 4:
		return g.text()
	case 5:
		return g.list("[", "]", func(int) string { return g.value(depth + 1) })
	}
	return g.list("{", "}", func(i int) string {
		name := g.text() // made unlike the others by its number
		return name[:len(name)-1] + strconv.Itoa(i) + `"` + g.space() + ":" + g.space() + g.value(depth+1)
	})
}

// number spells a random double in one of several ways, but none that is an integer out of range.
func (g generator) number() string {
	f := math.Float64frombits(g.Uint64())
	if g.IntN(2) == 0 {
		f = float64(g.IntN(2_000_000)-1_000_000) / 1000
	}
	if math.IsNaN(f) || math.IsInf(f, 0) || f == 0 || math.Abs(f) > canonical.MaxInteger && math.Abs(f) < 1e21 {
		return "0"
	}
	format := []byte{'e', 'E', 'g', 'G'}[g.IntN(4)]
	return strconv.FormatFloat(f, format, 17, 64)
}

func (g generator) text() string {
	pieces := []string{
		"a", "Z", " ", "/", "é", "\u2028", "😂", "\ufb33", "\u007f", "中",
		`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\u0000`, `\u001F`, `\u00e9`, `\uD83D\ude02`, `\ufb33`, `\u005c`, `\u0022`,
	}
	var b strings.Builder
	for range g.IntN(6) {
		b.WriteString(pieces[g.IntN(len(pieces))])
	}
	return `"` + b.String() + `"`
}

func (g generator) list(open, closing string, item func(i int) string) string {
	var items []string
	for i := range g.IntN(6) {
		items = append(items, g.space()+item(i)+g.space())
	}
	if len(items) == 0 {
		return open + g.space() + closing
	}
	return open + strings.Join(items, ",") + closing
}

func (g generator) space() string { return []string{"", "", "", " ", "\n", "\r\n\t"}[g.IntN(6)] }
