package broker

import (
	"crypto/rand"
	"encoding/hex"
)

// newInstance tells executions of one document apart.
func newInstance() string {
	var b [6]byte
	rand.Read(b[:]) // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}
