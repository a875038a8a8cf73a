package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"arch.network/attest/manifest"
)

// target is a manifest and where it was found.
type target struct {
	doc  *manifest.Build
	base string // absolute directory that its paths are relative to
	file string // absolute path of the manifest
}

func (a *app) readTargets(args []string) ([]target, error) {
	var targets []target
	for _, arg := range args {
		t, err := a.readTarget(arg)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// readTarget reads the Build manifest that an argument names.
func (a *app) readTarget(arg string) (target, error) {
	path := arg
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "build.yaml")
	}
	doc, err := a.readDocument(path)
	if errors.Is(err, fs.ErrNotExist) {
		return target{}, hinted(fmt.Errorf("read target %s: %w", arg, err), "a target is a Build manifest, or a directory that holds build.yaml")
	}
	if err != nil {
		return target{}, err
	}
	build, ok := doc.(*manifest.Build)
	if !ok {
		return target{}, hinted(fmt.Errorf("%s is a %s, not a Build", path, doc.DocumentKind()), "arch build takes documents of kind Build")
	}
	file, err := filepath.Abs(path)
	if err != nil {
		return target{}, err
	}
	if real, err := filepath.EvalSymlinks(file); err == nil { // a target given under two names is given twice
		file = real
	}
	return target{build, filepath.Dir(file), file}, nil
}

// checkPaths refuses local inputs that are not there, before anything is fetched.
func checkPaths(targets []target) error {
	for _, t := range targets {
		for _, in := range t.doc.Spec.Inputs {
			if in.Path == "" {
				continue
			}
			if _, err := os.Lstat(filepath.Join(t.base, in.Path)); err != nil {
				return hinted(withStatus(exitInputsMissing, fmt.Errorf("%s: input %s: %w", t.file, in.Name, err)),
					"paths are relative to the manifest's directory, "+t.base)
			}
		}
	}
	return nil
}

// checkNames refuses targets that would write to the same place.
func checkNames(targets []target) error {
	files, outputs, names := map[string]bool{}, map[string]string{}, map[string]string{}
	for _, t := range targets {
		name := t.doc.Metadata.Name
		if files[t.file] {
			return hinted(usage("target %s is given twice", t.file), "name it once")
		}
		files[t.file] = true
		if first, ok := names[name]; ok {
			return hinted(usage("%s and %s are both named %q: their receipts would clash", first, t.file, name),
				"build them one by one, each with a directory of its own by --out")
		}
		names[name] = t.file
		for _, out := range t.doc.Spec.Outputs {
			if first, ok := outputs[out.Name]; ok {
				return hinted(usage("%s and %s both have an output named %q", first, t.file, out.Name),
					"build them one by one, each with a directory of its own by --out")
			}
			outputs[out.Name] = t.file
		}
	}
	return nil
}

// checkPlaces refuses to deliver over what a target is made of.
func checkPlaces(dir string, targets []target) error {
	for _, t := range targets {
		sources := []string{t.file}
		for _, in := range t.doc.Spec.Inputs {
			if in.Path != "" {
				sources = append(sources, filepath.Join(t.base, in.Path))
			}
		}
		for _, out := range t.doc.Spec.Outputs {
			place, err := realPath(filepath.Join(dir, out.Name))
			if err != nil {
				return err
			}
			for _, source := range sources {
				source, err := realPath(source)
				if err != nil {
					return err
				}
				if within(source, place) {
					return hinted(usage("output %q would go to %s, which is or holds the source %s", out.Name, place, source), "choose another directory with --out")
				}
			}
		}
	}
	return nil
}

// realPath is the absolute path with the symbolic links of those elements resolved that exist, but not the last one,
// which a delivery replaces.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, rest := filepath.Dir(abs), filepath.Base(abs)
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if dir == filepath.Dir(dir) {
			return abs, nil
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}

// within reports whether path is dir or lies below it; both are clean.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
