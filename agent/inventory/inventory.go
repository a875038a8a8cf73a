// Package inventory measures facts about a node's machine, which placement constraints and a policy's conditions are compared with. It reads, and
// changes nothing.
package inventory

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"

	"arch.network/attest/manifest"
	"arch.network/runner/cdi"
	"arch.network/runner/meter"
)

// Options say what cannot be seen from the machine alone.
type Options struct {
	Root   string   // where /proc and /sys are looked for, for the energy; empty: "/"
	CDI    []string // directories of specifications of the Container Device Interface; empty: cdi.Directories
	Driver string   // how jobs are confined, such as "systemd"; empty: it is not told
}

// Measure returns the facts of now. The keys are those of placement.constraints, the values JSON:
//
//	node.os, node.arch    as Go names them: "linux", "amd64"
//	node.kernel           the release of the kernel, such as "6.1.0-18-amd64" (uname(2))
//	node.cpus             how many processors this process may use (sched_getaffinity(2))
//	node.cpu_features     a list of what the processor can do, such as "avx2": as golang.org/x/sys/cpu names it, in lower case; amd64 and arm64 alone
//	node.memory           bytes of memory (sysinfo(2))
//	node.devices          a list of devices by the names that jobs ask for, such as "nvidia.com/gpu=0" (package cdi)
//	node.driver           Options.Driver
//	energy.meter          "rapl" where the processor counts what it uses and this process may read that, "model" elsewhere (package meter)
//
// A fact that cannot be measured is left out, so that no constraint on it holds; the error says which and why. The others are returned with it.
func Measure(o Options) (map[string]manifest.Raw, error) {
	root := o.Root
	if root == "" {
		root = "/"
	}
	facts := map[string]manifest.Raw{}
	var errs []error
	set := func(key string, v any, err error) {
		data, encoding := json.Marshal(v)
		if err = errors.Join(err, encoding); err != nil {
			errs = append(errs, fmt.Errorf("measure %s: %w", key, err))
			return
		}
		facts[key] = data
	}
	set("node.os", runtime.GOOS, nil)
	set("node.arch", runtime.GOARCH, nil)
	set("node.cpus", runtime.NumCPU(), nil)
	var name unix.Utsname
	err := unix.Uname(&name)
	set("node.kernel", unix.ByteSliceToString(name.Release[:]), err)
	var info unix.Sysinfo_t
	err = unix.Sysinfo(&info)
	set("node.memory", uint64(info.Totalram)*uint64(info.Unit), err)
	switch runtime.GOARCH {
	case "amd64":
		set("node.cpu_features", cpuFeatures(cpu.X86), nil)
	case "arm64":
		set("node.cpu_features", cpuFeatures(cpu.ARM64), nil)
	}
	dirs := o.CDI
	if len(dirs) == 0 {
		dirs = cdi.Directories()
	}
	devices, err := cdi.Names(dirs)
	set("node.devices", devices, err)
	if o.Driver != "" {
		set("node.driver", o.Driver, nil)
	}
	kind := "model"
	if _, counted := meter.OpenEnergy(root).(*meter.RAPL); counted {
		kind = "rapl"
	}
	set("energy.meter", kind, nil)
	return facts, errors.Join(errs...)
}

// cpuFeatures lists what a record of package cpu says that there is: the names of its fields without "Has", in lower case, sorted.
func cpuFeatures(record any) []string {
	v := reflect.ValueOf(record)
	out := []string{}
	for i := range v.NumField() {
		if name, ok := strings.CutPrefix(v.Type().Field(i).Name, "Has"); ok && v.Field(i).Kind() == reflect.Bool && v.Field(i).Bool() {
			out = append(out, strings.ToLower(name))
		}
	}
	slices.Sort(out)
	return out
}
