package canonical

import (
	"encoding/binary"
	"testing"
)

// Every byte at every place, among neighbours that borrow and that do not: ordinary finds the first that must be looked at.
func TestOrdinary(t *testing.T) {
	plain := func(c byte) bool { return c >= ' ' && c != '"' && c != '\\' && c < 0x80 }
	eachEight(func(b [8]byte) {
		want := 0
		for want < 8 && plain(b[want]) {
			want++
		}
		if got := ordinary(binary.LittleEndian.Uint64(b[:])); got != want {
			t.Errorf("%q: %d ordinary bytes, want %d", b, got, want)
		}
	})
}

// Where a literal ends does not depend on where eight bytes begin.
func TestStringLen(t *testing.T) {
	slow := func(data []byte) int {
		for i := 1; i < len(data); i++ {
			switch data[i] {
			case '"':
				return i + 1
			case '\\':
				i++
			}
		}
		return 0
	}
	eachEight(func(b [8]byte) {
		for _, tail := range []string{"", `"`, `\"`, `\\"`, `0123456789"`, `01234567\`, `0123456"rest`} {
			data := append([]byte(`"`+string(b[:])), tail...)
			for from := range 8 {
				if got, want := StringLen(data[from:]), slow(data[from:]); got != want {
					t.Errorf("%q: length %d, want %d", data[from:], got, want)
				}
			}
		}
	})
}

// eachEight calls f with each byte at each of eight places, among neighbours of several kinds.
func eachEight(f func([8]byte)) {
	for _, around := range []byte{'a', ' ', '!', '#', '[', ']', 0x7f, 0, 0x1f, '"', '\\', 0x80, 0xff} {
		for place := range 8 {
			for c := range 256 {
				var b [8]byte
				for i := range b {
					b[i] = around
				}
				b[place] = byte(c)
				f(b)
			}
		}
	}
}
