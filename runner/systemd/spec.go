package systemd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"

	"arch.network/runner"
)

// complete checks what this driver itself uses of spec, and names it; the inner layer checks the rest.
func complete(spec runner.Spec) (runner.Spec, error) {
	if err := checkSpec(spec); err != nil {
		return spec, &runner.SetupError{Act: "check spec", Err: err}
	}
	if spec.Name == "" {
		spec.Name = randomName()
	}
	return spec, nil
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func checkSpec(spec runner.Spec) error {
	l := spec.Limits
	for _, n := range []int64{int64(l.Wall), l.CPU, l.Memory, l.Scratch, int64(l.Processes), l.Log, l.Output, l.IORead, l.IOWrite} {
		if n < 0 {
			return errors.New("a limit is negative")
		}
	}
	switch {
	case len(spec.Name) > 64 || strings.Trim(spec.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("name %q is not 1 to 64 of a-z, 0-9 and '-'", spec.Name)
	case spec.Module != nil:
		return errors.New("a driver runs no modules: give the Spec to runner/wasm")
	case !(l.Power >= 0) || math.IsInf(l.Power, 0):
		return fmt.Errorf("power of %v watts is not a positive number", l.Power)
	case l.Memory > 0 && l.Memory > 1<<60 || int64(l.Processes) > 1<<22 || l.CPU > 1<<40:
		return errors.New("a limit is absurdly high")
	}
	return checkOutputs(spec)
}

func checkOutputs(spec runner.Spec) error {
	seen := map[string]bool{}
	for _, o := range spec.Outputs {
		if o.Name == "" || seen[o.Name] {
			return fmt.Errorf("output name %q is empty or not unique", o.Name)
		}
		seen[o.Name] = true
	}
	if len(spec.Outputs) > 0 && spec.Collect == nil {
		return errors.New("there are outputs, but nothing collects them")
	}
	return nil
}
