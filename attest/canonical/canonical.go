// Package canonical writes and reads JSON in the one form that is signed: RFC 8785, the JSON Canonicalization
// Scheme. It stands between every document's Go type and the bytes that signatures, document ids and
// deterministic claims cover.
//
// It promises that one value has one form and one form has one value: whatever Marshal and Transform return is
// accepted again by Transform and comes back unchanged, and Unmarshal accepts nothing else. Work and memory grow
// linearly with the input (sorting members adds a logarithm), and the input is bounded by MaxSize and MaxDepth.
//
// It is stricter than RFC 8785 where that RFC lets two different inputs share one form without a word: an
// integer outside ±MaxInteger, a negative zero and a number too small for a double are errors, never rounded.
// Unicode is not normalised, and U+FFFE and its like pass: both are the reader's business, not the encoding's.
//
// It never guesses, repairs or fills in: what it does not accept as it stands is an error that names the byte.
package canonical

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// Limits of every input.
const (
	MaxSize    = 16 << 20  // bytes of JSON; the size of the largest receipt
	MaxDepth   = 64        // arrays and objects inside each other
	MaxInteger = 1<<53 - 1 // largest magnitude of an integer: RFC 7493 section 2.2; beyond it doubles skip integers
)

// Marshal returns the canonical form of v: v goes through encoding/json, with its tags and marshalling methods,
// and then through Transform. A Go string that is not UTF-8 is an error; encoding/json alone would replace its
// bytes. (A json.RawMessage that spells U+FFFD as an escape is refused for the same reason.)
func Marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	out, err := transform(buf.Bytes(), true)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return out, nil
}

// Transform returns the canonical form of one JSON value (RFC 8259) with optional white space around it.
// Errors are of type *SyntaxError: besides what is no JSON, duplicate member names, invalid UTF-8, lone surrogates,
// a byte order mark, trailing data, depth over MaxDepth, size over MaxSize, negative zero, integers outside
// ±MaxInteger, and numbers that overflow or underflow a double.
//
// A number with fraction or exponent is a double. It is refused as an integer if its canonical form would be one
// outside the range (9007199254740992.0, 1e20), and kept if that form has an exponent (1e30 becomes 1e+30).
//
// What is in canonical form already is not copied: the result may be a part of data.
func Transform(data []byte) ([]byte, error) { return transform(data, false) }

// Check tells whether data is byte for byte in canonical form; the error is a *SyntaxError or a *MismatchError.
func Check(data []byte) error {
	form, err := Transform(data)
	if err != nil {
		return err
	}
	return compare(data, form)
}

// Unmarshal decodes data into the value that v, a pointer that is not nil, points at. It demands that data is in
// canonical form and is byte for byte what Marshal makes of the decoded value. So unknown members, members
// spelled in another case, members that the type leaves out when empty, null in place of an absent value, and a
// second spelling of a text that the type accepts are all errors. The target is replaced as a whole,
// and only on success: nothing of its old content survives, and nothing half-read appears.
func Unmarshal(data []byte, v any) error {
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("decode into %T: not a pointer to a value", v)
	}
	fresh := reflect.New(target.Type().Elem())
	if len(data) <= MaxSize && again(data, fresh.Interface()) {
		target.Elem().Set(fresh.Elem())
		return nil
	}
	// It is refused; what follows finds out why.
	if err := Check(data); err != nil {
		return fmt.Errorf("decode %s: %w", target.Type().Elem(), err)
	}
	fresh = reflect.New(target.Type().Elem())
	if err := decode(data, fresh.Interface()); err != nil {
		return fmt.Errorf("decode %s: %w", target.Type().Elem(), err)
	}
	target.Elem().Set(fresh.Elem())
	return nil
}

// again decodes data into the empty value behind ptr, and reports whether Marshal makes the same bytes of it: whatever it makes is
// in canonical form, so then data is, too.
func again(data []byte, ptr any) bool {
	if json.Unmarshal(data, ptr) != nil {
		return false
	}
	form, err := Marshal(ptr)
	return err == nil && bytes.Equal(form, data)
}

// decode reads canonical data into the empty value behind ptr and compares what came out.
func decode(data []byte, ptr any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(ptr); err != nil {
		return err
	}
	again, err := Marshal(ptr)
	if err != nil {
		return err
	}
	return compare(data, again)
}

// compare returns a *MismatchError at the first byte where have is not want.
func compare(have, want []byte) error {
	if bytes.Equal(have, want) {
		return nil
	}
	at := 0
	for at < len(have) && at < len(want) && have[at] == want[at] {
		at++
	}
	return &MismatchError{Offset: at, Have: excerpt(have, at), Want: excerpt(want, at)}
}

// excerpt returns a few bytes around at, for a message.
func excerpt(b []byte, at int) string {
	const before, after = 12, 20
	return string(b[max(0, at-before):min(len(b), at+after)])
}
