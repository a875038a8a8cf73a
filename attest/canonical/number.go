package canonical

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
)

const integerHint = "write a number this large as a string"

// appendNumber appends the canonical form of a number token that starts at byte at of the input.
func appendNumber(out, token []byte, integer bool, at int) ([]byte, error) {
	if integer {
		return appendInteger(out, token, at)
	}
	f, err := strconv.ParseFloat(string(token), 64)
	switch {
	case err != nil: // the grammar has been checked: only the range is left
		return nil, &SyntaxError{Offset: at, Msg: fmt.Sprintf("number %s overflows a double", short(token))}
	case f == 0 && significant(token):
		return nil, &SyntaxError{Offset: at, Msg: fmt.Sprintf("number %s underflows a double", short(token))}
	case f == 0 && token[0] == '-':
		return nil, negativeZero(at)
	case f == math.Trunc(f) && math.Abs(f) > MaxInteger && math.Abs(f) < 1e21:
		return nil, outOfRange(token, at)
	}
	return appendFloat(out, f), nil
}

// appendInteger appends a token of an optional sign and digits, which is its own canonical form.
func appendInteger(out, token []byte, at int) ([]byte, error) {
	const longest = len("-9007199254740991")
	if len(token) > longest {
		return nil, outOfRange(token, at)
	}
	n, err := strconv.ParseInt(string(token), 10, 64)
	if err != nil || n > MaxInteger || n < -MaxInteger {
		return nil, outOfRange(token, at)
	}
	if n == 0 && token[0] == '-' {
		return nil, negativeZero(at)
	}
	return append(out, token...), nil
}

func outOfRange(token []byte, at int) error {
	return &SyntaxError{Offset: at, Msg: fmt.Sprintf("integer %s is outside ±(2^53-1)", short(token)), hint: integerHint}
}

func negativeZero(at int) error {
	return &SyntaxError{Offset: at, Msg: "negative zero", hint: "write 0"}
}

// significant reports whether the mantissa of token has a digit other than 0.
func significant(token []byte) bool {
	mantissa, _, _ := bytes.Cut(bytes.ToLower(token), []byte("e"))
	return bytes.ContainsAny(mantissa, "123456789")
}

// short returns the beginning of a token for a message; a token is digits, signs, '.' and 'e' only.
func short(token []byte) string {
	const limit = 32
	if len(token) <= limit {
		return string(token)
	}
	return string(token[:limit]) + "…"
}

// appendFloat appends f, which is finite, as ECMAScript's Number::toString does (ECMA-262 section 6.1.6.1.20; RFC 8785
// section 3.2.2.3): the shortest digits that read back as f, laid out by their exponent.
func appendFloat(out []byte, f float64) []byte {
	if f == 0 {
		return append(out, '0') // ECMAScript writes -0 so too
	}
	if f < 0 {
		out = append(out, '-')
		f = -f
	}
	var scratch [32]byte
	digits, n := shortest(scratch[:0], f)
	k := len(digits)
	switch {
	case k <= n && n <= 21:
		out = append(out, digits...)
		return appendZeros(out, n-k)
	case 0 < n && n <= 21:
		out = append(out, digits[:n]...)
		out = append(out, '.')
		return append(out, digits[n:]...)
	case -6 < n && n <= 0:
		out = appendZeros(append(out, "0."...), -n)
		return append(out, digits...)
	}
	out = append(out, digits[0])
	if k > 1 {
		out = append(out, '.')
		out = append(out, digits[1:]...)
	}
	out = append(out, 'e')
	if n > 0 {
		out = append(out, '+')
	}
	return strconv.AppendInt(out, int64(n-1), 10)
}

// shortest returns the shortest decimal digits of f > 0 and the exponent n with f ≈ 0.digits × 10^n.
func shortest(scratch []byte, f float64) (digits []byte, n int) {
	text := strconv.AppendFloat(scratch, f, 'e', -1, 64) // d.ddde±xx
	e := bytes.IndexByte(text, 'e')
	exponent, _ := strconv.Atoi(string(text[e+1:])) // always well formed
	if e == 1 {
		return text[:1], exponent + 1
	}
	text[1] = text[0] // over the point
	return text[1:e], exponent + 1
}

func appendZeros(out []byte, n int) []byte {
	const zeros = "000000000000000000000"
	return append(out, zeros[:n]...)
}
