package builder

import (
	"fmt"
	"slices"
	"strings"
)

// Factor is one property of the surroundings of a build that must not show in its outputs. The package documentation
// says what each can show.
type Factor string

// The factors, in the order in which they are tried when one of them is guilty.
const (
	FactorTime     Factor = "time"
	FactorPath     Factor = "path"
	FactorUID      Factor = "uid"
	FactorHostname Factor = "hostname"
	FactorLocale   Factor = "locale"
	FactorTZ       Factor = "tz"
	FactorUmask    Factor = "umask"
	FactorCPUs     Factor = "cpus"
	FactorOrder    Factor = "order"
)

// Factors returns all factors.
func Factors() []Factor {
	return []Factor{
		FactorTime, FactorPath, FactorUID, FactorHostname, FactorLocale, FactorTZ, FactorUmask, FactorCPUs, FactorOrder,
	}
}

// ParseFactors reads a comma-separated list of factors, "all", or "none".
func ParseFactors(s string) ([]Factor, error) {
	switch s {
	case "all":
		return Factors(), nil
	case "none", "":
		return nil, nil
	}
	var fs []Factor
	for name := range strings.SplitSeq(s, ",") {
		f := Factor(strings.TrimSpace(name))
		if !slices.Contains(Factors(), f) {
			return nil, fmt.Errorf("factor %q is not one of %s, all, none", name, joinFactors(Factors()))
		}
		if !slices.Contains(fs, f) {
			fs = append(fs, f)
		}
	}
	return fs, nil
}

func joinFactors(fs []Factor) string {
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

// without returns fs without f.
func without(fs []Factor, f Factor) []Factor {
	return slices.DeleteFunc(slices.Clone(fs), func(other Factor) bool { return other == f })
}
