package canonical

import (
	"encoding/binary"
	"testing"
)

// Every byte at every place, among neighbours that borrow and that do not: ordinary never misses what must be looked at.
func TestOrdinary(t *testing.T) {
	plain := func(c byte) bool { return c >= ' ' && c != '"' && c != '\\' && c < 0x80 }
	for _, around := range []byte{'a', ' ', '!', '#', '[', ']', 0x7f, 0, 0x1f, '"', '\\', 0xff} {
		for place := range 8 {
			for c := range 256 {
				var b [8]byte
				for i := range b {
					b[i] = around
				}
				b[place] = byte(c)
				got, want := ordinary(binary.LittleEndian.Uint64(b[:])), plain(byte(c)) && plain(around)
				if got && !want || !got && want && plain(around) {
					t.Errorf("%q: got %t", b, got)
				}
			}
		}
	}
}
