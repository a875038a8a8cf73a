package manifest

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Quantity is a Kubernetes quantity, such as "4", "500m", "8Gi" or "1G", in the spelling of its author. It is never
// negative and has at most 32 characters. Empty: not given.
//
// Grammar: https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity without signs.
type Quantity string

const quantityPattern = `^([0-9]+(\.[0-9]*)?|\.[0-9]+)(m|k|[MGTPE]i?|Ki|[eE][+-]?[0-9]{1,2})?$`

var quantityText = compiled(quantityPattern)

// Bytes returns the quantity as a whole number of bytes; zero if it is empty.
func (q Quantity) Bytes() (int64, error) { return q.scaled(1, "a whole number of bytes") }

// Milli returns the quantity in thousandths: "1.5" and "1500m" are 1500. Zero if it is empty.
func (q Quantity) Milli() (int64, error) { return q.scaled(1000, "a whole number of thousandths") }

// Validate checks the grammar, and that the value has at most 15 digits before the decimal point.
func (q Quantity) Validate() error {
	if _, ok := q.milli(); ok {
		return nil
	}
	_, err := q.value()
	return err
}

func (q Quantity) scaled(by int64, what string) (int64, error) {
	if n, ok := q.milli(); ok && n*by%1000 == 0 {
		return n / (1000 / by), nil
	}
	v, err := q.value()
	if err != nil {
		return 0, err
	}
	v.Mul(v, new(big.Rat).SetInt64(by))
	if !v.IsInt() || !v.Num().IsInt64() {
		return 0, fmt.Errorf("quantity %q is not %s", string(q), what)
	}
	return v.Num().Int64(), nil
}

// milli reads what is usual, digits and a suffix, without big numbers; false: value has to look. Admission reads many.
func (q Quantity) milli() (int64, bool) {
	digits := 0
	for digits < len(q) && '0' <= q[digits] && q[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseInt(string(q[:digits]), 10, 64)
	if err != nil || len(q) > 32 {
		return 0, q == ""
	}
	unit := int64(1000)
	switch q[digits:] {
	case "":
	case "m":
		unit = 1
	case "k":
		unit = 1e6
	case "M":
		unit = 1e9
	case "G":
		unit = 1e12
	case "Ki":
		unit = 1000 << 10
	case "Mi":
		unit = 1000 << 20
	case "Gi":
		unit = 1000 << 30
	default:
		return 0, false
	}
	return n * unit, n <= math.MaxInt64/unit/1000 // room for another factor of 1000
}

// maxQuantity is 8 Ei, the first value that no int64 of bytes holds.
var maxQuantity = new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), 63))

func (q Quantity) value() (*big.Rat, error) {
	if q == "" {
		return new(big.Rat), nil
	}
	m := quantityText().FindStringSubmatch(string(q))
	if m == nil || len(q) > 32 {
		return nil, &quantityError{string(q)}
	}
	number, suffix := m[1], m[3]
	v, ok := new(big.Rat).SetString(strings.TrimSuffix(number, "."))
	if !ok {
		return nil, &quantityError{string(q)}
	}
	v.Mul(v, quantityUnit(suffix))
	if v.Cmp(maxQuantity) >= 0 {
		return nil, fmt.Errorf("quantity %q is not below 8Ei", string(q))
	}
	return v, nil
}

// quantityUnit returns the factor of a suffix that quantityText accepts.
func quantityUnit(suffix string) *big.Rat {
	pow := func(base, exp int64) *big.Rat {
		if exp < 0 {
			return new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(base), big.NewInt(-exp), nil))
		}
		return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(exp), nil))
	}
	switch {
	case suffix == "":
		return pow(10, 0)
	case suffix == "m":
		return pow(10, -3)
	case len(suffix) == 1 && strings.Contains("kMGTPE", suffix):
		return pow(1000, int64(strings.Index("kMGTPE", suffix))+1)
	case strings.HasSuffix(suffix, "i"):
		return pow(1024, int64(strings.Index("KMGTPE", suffix[:1]))+1)
	}
	exp, _ := strconv.ParseInt(suffix[1:], 10, 64) // two digits by the pattern
	return pow(10, exp)
}

// quantityError says that a text is no quantity.
type quantityError struct{ text string }

func (e *quantityError) Error() string { return fmt.Sprintf("%q is no quantity", shorten(e.text)) }
func (e *quantityError) Hint() string {
	return `write a number with an optional suffix m, k, M, G, T, Ki, Mi, Gi or Ti, such as "500m" or "8Gi"`
}

// Duration is a span of time such as "90s", "1h30m" or "30d", in the spelling of its author: whole days, hours, minutes
// and seconds, in this order, at most 100 years. Empty: not given.
type Duration string

const durationPattern = `^(?:[0-9]{1,5}d)?(?:[0-9]{1,6}h)?(?:[0-9]{1,8}m)?(?:[0-9]{1,10}s)?$`

var durationText = compiled(strings.ReplaceAll(durationPattern, "(?:", "("))

const maxDuration = 100 * 365 * 24 * time.Hour

// Duration returns the span; zero if it is empty.
func (d Duration) Duration() (time.Duration, error) {
	if d == "" {
		return 0, nil
	}
	m := durationText().FindStringSubmatch(string(d))
	if m == nil {
		return 0, &durationError{string(d)}
	}
	var sum time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] == "" {
			continue
		}
		n, _ := strconv.ParseInt(m[i+1][:len(m[i+1])-1], 10, 64) // at most ten digits by the pattern
		if n > int64(maxDuration/unit) {
			return 0, &durationError{string(d)}
		}
		sum += time.Duration(n) * unit
		if sum > maxDuration {
			return 0, &durationError{string(d)}
		}
	}
	return sum, nil
}

// Validate checks the grammar.
func (d Duration) Validate() error {
	_, err := d.Duration()
	return err
}

// durationError says that a text is no duration.
type durationError struct{ text string }

func (e *durationError) Error() string {
	return fmt.Sprintf("%q is no duration of at most 100 years", shorten(e.text))
}

func (e *durationError) Hint() string {
	return `write days, hours, minutes and seconds in this order, such as "90s", "1h30m" or "30d"`
}
