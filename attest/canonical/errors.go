package canonical

import "fmt"

// SyntaxError says at which byte an input is no JSON that has a canonical form, and why.
type SyntaxError struct {
	Offset int    // bytes before the place, from 0
	Msg    string // such as `duplicate member "kind"`
	hint   string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("read JSON at byte %d: %s", e.Offset, e.Msg) }

// Hint returns the way out, or "" if none is known.
func (e *SyntaxError) Hint() string { return e.hint }

// MismatchError says that an input is valid JSON, but not the canonical form of the value it holds.
type MismatchError struct {
	Offset int    // bytes before the first difference, from 0
	Have   string // the input around there, a few bytes
	Want   string // the canonical form around there
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("compare JSON with its canonical form: byte %d is different: have %q, want %q", e.Offset, e.Have, e.Want)
}

// Hint says what canonical form asks for.
func (e *MismatchError) Hint() string {
	return "the canonical form (RFC 8785) has no spaces, sorted member names spelled as documented, and no empty optional members"
}
