package nar

import (
	"bufio"
	"io"
)

// Copy copies the NAR that r goes on with to w, and consumes nothing of what follows it. What is written are the bytes that were read, since
// a tree has but one NAR; on error what was already written is worthless. The buffer of r must have at least 64 KiB.
func Copy(w io.Writer, r *bufio.Reader, limits Limits) error {
	to := NewWriter(w, limits)
	for from := NewPrefixReader(r, limits); ; {
		e, err := from.Next()
		if err == io.EOF {
			return to.Close()
		}
		if err == nil {
			err = to.WriteEntry(e)
		}
		if err == nil && e.Type == Regular {
			_, err = io.Copy(to, from)
		}
		if err != nil {
			return err
		}
	}
}
