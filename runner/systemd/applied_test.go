package systemd_test

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"arch.network/runner/systemd"
)

// testApplied compares what arch run --explain lists, which is Properties, with what systemd says of the running unit.
func testApplied(t *testing.T, options systemd.Options) {
	r := driver(t, options)
	gate := newGate(t)
	spec := waitingJob(options.Executable, gate)
	spec.Limits.CPU, spec.Limits.Processes = 1500, 64
	listed, err := r.Properties(spec)
	if err != nil {
		t.Fatal(err)
	}
	out, in := io.Pipe()
	spec.Stdout = in
	ended := make(chan error, 1)
	go func() {
		_, err := r.Run(t.Context(), spec)
		ended <- err
	}()
	pipe := openGate(t, gate)
	if _, err := io.ReadFull(out, make([]byte, len("waiting\n"))); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	applied, err := systemd.Applied(t.Context(), r, "arch-job-"+spec.Name+".service")
	if err != nil {
		t.Error(err)
	}
	for _, p := range listed {
		got, ok := applied[p.Name]
		if p.Name == "AddRef" { // a request to systemd, and no state of the unit
			continue
		}
		if !ok {
			t.Errorf("%s is listed, and systemd has no such property", p)
			continue
		}
		if why := differs(p.Name, flat(p.Value), flat(got)); why != "" {
			t.Errorf("%s: %s", p.Name, why)
		}
	}
	if got := fmt.Sprint(applied["ControlGroup"]); !strings.Contains(got, "/arch-jobs.slice/") {
		t.Errorf("Slice=arch-jobs.slice, and the unit is in %s", got)
	}
	pipe.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	t.Logf("%d properties are as listed", len(listed)-1)
}

// flat makes values comparable that come as structs of this package or as what the bus decodes: nested lists of texts.
func flat(v any) any {
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Interface, reflect.Pointer:
		return flat(r.Elem().Interface())
	case reflect.Struct:
		var list []any
		for _, field := range r.Fields() {
			list = append(list, flat(field.Interface()))
		}
		return list
	case reflect.Slice, reflect.Array:
		list := []any{}
		for n := range r.Len() {
			list = append(list, flat(r.Index(n).Interface()))
		}
		return list
	}
	return fmt.Sprint(v)
}

// differs says how what systemd applied is not what was listed; "": it is.
func differs(name string, want, got any) string {
	switch name {
	case "ExecStart": // of which systemd also tells when it ran
		want, got = want.([]any)[0].([]any)[:2], got.([]any)[0].([]any)[:2]
	case "SystemCallFilter": // the groups come back as their members
		w, g := want.([]any), got.([]any)
		if fmt.Sprint(w[0]) != fmt.Sprint(g[0]) {
			return fmt.Sprintf("an allow-list is %v, listed %v", g[0], w[0])
		}
		for _, call := range w[1].([]any) {
			if !strings.HasPrefix(call.(string), "@") && !slices.Contains(g[1].([]any), call) {
				return fmt.Sprintf("%v is not among %v", call, g[1])
			}
		}
		for _, forbidden := range []any{"bpf", "init_module", "reboot", "swapon"} {
			if slices.Contains(g[1].([]any), forbidden) {
				return fmt.Sprintf("%v is let through", forbidden)
			}
		}
		return ""
	case "RestrictAddressFamilies", "DeviceAllow", "IPAddressDeny": // sets
		want, got = sortedLists(want), sortedLists(got)
	}
	if w, g := fmt.Sprint(want), fmt.Sprint(got); w != g {
		return fmt.Sprintf("systemd applied %s, listed is %s", g, w)
	}
	return ""
}

// sortedLists returns v with every list in it sorted.
func sortedLists(v any) any {
	list, ok := v.([]any)
	if !ok {
		return v
	}
	var out []any
	for _, e := range list {
		out = append(out, sortedLists(e))
	}
	if len(out) > 0 {
		if _, records := out[0].([]any); records || len(out) > 3 {
			slices.SortFunc(out, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	return out
}
