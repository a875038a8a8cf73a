package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"arch.network/attest"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/attest/quorum"
	"arch.network/builder"
)

// trustFile is the name of the default trust root in the configuration directory.
const trustFile = "trust.yaml"

// ownTrustLife is for how long the trust root holds that is made with the first key.
const ownTrustLife = 2 * 365 * 24 * time.Hour

func newTrustCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "Show and edit the trust root: whose signatures count for what",
		Long: `A trust root names principals, their keys, and how many of them must agree in each role.

The one in the configuration directory is what arch verify uses unless told otherwise. It is a local file that you
edit; a trust root that a node takes from others must be signed by the old and the new governance.`,
	}
	c.AddCommand(newTrustShowCommand(a), newTrustAddCommand(a))
	return c
}

func (a *app) trustPath() (string, error) {
	dir, err := a.configDir()
	return filepath.Join(dir, trustFile), err
}

// openTrust reads and compiles the trust root at path, or the default one. It is trusted because it lies where it lies.
func (a *app) openTrust(path string) (*manifest.TrustRoot, *attest.Trust, error) {
	if path == "" {
		var err error
		if path, err = a.trustPath(); err != nil {
			return nil, nil, err
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, hinted(fmt.Errorf("read trust root: %w", err),
				"arch trust add DID --name NAME makes one that trusts a key, and arch key new followed by arch build --attest one that trusts your own")
		}
	}
	doc, err := readDocument(path)
	if err != nil {
		return nil, nil, err
	}
	root, ok := doc.(*manifest.TrustRoot)
	if !ok {
		return nil, nil, fmt.Errorf("%s is a %s, not a TrustRoot", path, doc.DocumentKind())
	}
	compiled, err := attest.NewTrust(root)
	if err != nil {
		return nil, nil, fmt.Errorf("read trust root %s: %w", path, err)
	}
	return root, compiled, nil
}

// trustOwn makes a trust root that trusts key alone, unless there is a trust root already.
func (a *app) trustOwn(key identity.PublicKey) (path string, made bool, err error) {
	if path, err = a.trustPath(); err != nil {
		return "", false, err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, false, err
	}
	return path, true, writeTrust(path, newTrustRoot("self", "self", key.String()))
}

// newTrustRoot returns a trust root with one principal, who has every role that concerns artifacts.
func newTrustRoot(name, operator, key string) *manifest.TrustRoot {
	one := manifest.TrustGroup{Threshold: 1, Of: []string{name}}
	return &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{
			Name: "local", Expires: time.Now().Add(ownTrustLife).UTC().Truncate(time.Second).Format(time.RFC3339),
		},
		Spec: manifest.TrustRootSpec{
			Version:    1,
			Principals: []manifest.Principal{{Name: name, Operator: operator, Keys: []string{key}}},
			Roles: map[string]manifest.TrustGroup{
				manifest.RoleGovernance: one, manifest.RolePolicy: one, manifest.RoleBuilder: one, manifest.RoleRebuilder: one,
			},
		},
	}
}

func writeTrust(path string, root *manifest.TrustRoot) error {
	if _, err := quorum.Compile(root); err != nil {
		return fmt.Errorf("change trust root: %w", err)
	}
	src, err := manifest.WriteYAML(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := builder.WriteFile(path, src); err != nil {
		return fmt.Errorf("write trust root: %w", err)
	}
	return nil
}

func newTrustShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "show [FILE]",
		Short:   "Show who is trusted for what",
		Example: "  arch trust show",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = args[0]
			}
			root, _, err := a.openTrust(path)
			if err != nil {
				return err
			}
			return a.print(root, func(w io.Writer) { showTrust(w, root) })
		},
	}
}

func showTrust(w io.Writer, root *manifest.TrustRoot) {
	fmt.Fprintf(w, "%s, version %d, expires %s\n", root.Metadata.Name, root.Spec.Version, root.Metadata.Expires)
	for _, p := range root.Spec.Principals {
		fmt.Fprintf(w, "  principal %s, operator %s\n", p.Name, p.Operator)
		for _, k := range p.Keys {
			fmt.Fprintf(w, "    %s\n", k)
		}
	}
	for _, role := range manifest.Roles() {
		if g, ok := root.Spec.Roles[role]; ok {
			fmt.Fprintf(w, "  role %s: %d of %s\n", role, g.Threshold, strings.Join(g.Of, ", "))
		}
	}
}

func newTrustAddCommand(a *app) *cobra.Command {
	var name, operator, file string
	roles := []string{manifest.RoleBuilder, manifest.RoleRebuilder}
	c := &cobra.Command{
		Use:   "add KEY",
		Short: "Trust a key",
		Long: `Add makes the key (a did:key, or a file that holds a private key of yours) a principal of the trust root and a member
of the given roles, and counts the root's version up by one. Principals of one operator are not independent: what asks
for several operators counts them once.`,
		Example: `  arch trust add did:key:z6Mk… --name alice --operator example.org
  arch trust add did:key:z6Mk… --name ci --role builder`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := identity.ParsePublicKey(args[0])
			if err != nil {
				s, loadErr := a.loadKey(c.Context(), args[0])
				if loadErr != nil {
					return err
				}
				key = s.Public()
			}
			if name == "" {
				return usage("required flag(s) \"name\" not set")
			}
			if operator == "" {
				operator = name
			}
			path := file
			if path == "" {
				if path, err = a.trustPath(); err != nil {
					return err
				}
			}
			root, err := a.addPrincipal(path, manifest.Principal{Name: name, Operator: operator, Keys: []string{key.String()}}, roles)
			if err != nil {
				return err
			}
			return a.print(root, func(w io.Writer) { showTrust(w, root) })
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the principal")
	c.Flags().StringVar(&operator, "operator", "", "who runs it (default: its name)")
	c.Flags().StringSliceVar(&roles, "role", roles, "roles to give it")
	c.Flags().StringVar(&file, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	return c
}

func (a *app) addPrincipal(path string, p manifest.Principal, roles []string) (*manifest.TrustRoot, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		root := newTrustRoot(p.Name, p.Operator, p.Keys[0])
		return root, writeTrust(path, root)
	}
	root, _, err := a.openTrust(path)
	if err != nil {
		return nil, err
	}
	root.Signatures = nil // they were for the version before
	root.Spec.Version++
	root.Spec.Principals = append(root.Spec.Principals, p)
	for _, role := range roles {
		if !slices.Contains(manifest.Roles(), role) {
			return nil, usage("role %q is not one of %s", role, strings.Join(manifest.Roles(), ", "))
		}
		g := root.Spec.Roles[role]
		g.Threshold = max(g.Threshold, 1)
		g.Of = append(g.Of, p.Name)
		root.Spec.Roles[role] = g
	}
	return root, writeTrust(path, root)
}
