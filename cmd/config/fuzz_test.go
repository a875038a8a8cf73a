package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"arch.network/cmd/config"
)

// FuzzRead: whatever stands in a configuration file and in the environment, the settings of a program have a value that the flag takes
// again, or there is an error that names its place.
func FuzzRead(f *testing.F) {
	f.Add("read: true\nlisten: [a:1, b:2]\nslots: 9\n", "3", "a b")
	f.Add("# nothing\n", "", "")
	f.Add("slots: [1]\n", "", "")
	f.Add("slots: 0x10\nslots: 1\n", " ", "\x00")
	f.Add("read: yes\n", "-1", ",")
	f.Add("{read: false, listen: a}", "", "\t")
	known := config.Known{Names: []string{"slots", "read", "listen"}, Prefix: "X_"}
	f.Fuzz(func(t *testing.T, text, slots, listen string) {
		dir := t.TempDir()
		path, none := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "none.yaml")
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.WriteFile(none, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		apply := func(path string, variables map[string]string) ([]config.Setting, error) {
			flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
			flags.Int("slots", 0, "")
			flags.Bool("read", false, "")
			flags.StringArray("listen", nil, "")
			return known.Settle(flags, func(name string) string { return variables[name] }, path)
		}
		variables := map[string]string{"X_SLOTS": slots, "X_LISTEN": listen}
		settings, err := apply(path, variables)
		if err != nil {
			if place := err.Error(); !strings.HasPrefix(place, path) && !strings.HasPrefix(place, "X_SLOTS: ") && !strings.HasPrefix(place, "read configuration: ") {
				t.Errorf("the error has no place: %v", err)
			}
			return
		}
		if len(settings) != len(known.Names) {
			t.Fatalf("%d settings", len(settings))
		}
		again := map[string]string{}
		for _, s := range settings {
			for _, v := range s.Values {
				if s.Name == "listen" && len(strings.Fields(v)) != 1 {
					return // a value with blanks cannot be said in a variable
				}
			}
			again[known.Variable(s.Name)] = strings.Join(s.Values, " ")
		}
		back, err := apply(none, again)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range back {
			if strings.Join(s.Values, " ") != strings.Join(settings[i].Values, " ") {
				t.Errorf("setting %s: %q, and again %q", s.Name, settings[i].Values, s.Values)
			}
		}
	})
}
