package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

The one in the configuration directory is what arch verify uses unless told otherwise. Add edits that file: it is yours.
Update replaces it by a version that others made, if the governance of the old and of the new version signed that.`,
	}
	c.AddCommand(newTrustShowCommand(a), newTrustAddCommand(a), newTrustCheckCommand(a), newTrustUpdateCommand(a))
	return c
}

func (a *app) trustPath() (string, error) {
	dir, err := a.configDir()
	return filepath.Join(dir, trustFile), err
}

// openTrust reads and compiles the trust root at path, or the default one. It is trusted because it lies where it lies, so
// it must not be one that anybody may change.
func (a *app) openTrust(path string) (*manifest.TrustRoot, *attest.Trust, error) {
	if path == "" {
		var err error
		if path, err = a.trustPath(); err != nil {
			return nil, nil, err
		}
	}
	root, err := a.readTrust(path)
	if err != nil {
		return nil, nil, err
	}
	compiled, err := attest.NewTrust(root)
	if err != nil {
		return nil, nil, fmt.Errorf("read trust root %s: %w", path, err)
	}
	return root, compiled, nil
}

func (a *app) readTrust(path string) (*manifest.TrustRoot, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, hinted(fmt.Errorf("read trust root: %w", err),
			"arch trust add KEY --name NAME makes one that trusts a key; the first arch build --attest makes one that trusts your own")
	case err == nil && info.Mode().Perm()&0o002 != 0:
		return nil, hinted(fmt.Errorf("read trust root %s: everybody may change it", path), "chmod o-w "+path)
	}
	doc, err := a.readDocument(path)
	if err != nil {
		return nil, err
	}
	root, ok := doc.(*manifest.TrustRoot)
	if !ok {
		return nil, hinted(fmt.Errorf("%s is a %s, not a TrustRoot", path, doc.DocumentKind()), "--trust names a document of kind TrustRoot")
	}
	return root, nil
}

// trustOwn makes a trust root that trusts key alone, unless there is a trust root already.
func (a *app) trustOwn(key identity.PublicKey) (path string, made bool, err error) {
	if path, err = a.trustPath(); err != nil {
		return "", false, err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, false, err
	}
	self := manifest.Principal{Name: "self", Operator: "self", Keys: []string{key.String()}}
	roles := []string{manifest.RolePolicy, manifest.RoleBuilder, manifest.RoleRebuilder, manifest.RoleJob, manifest.RolePeer}
	return path, true, writeTrust(path, newTrustRoot(self, roles))
}

// newTrustRoot returns a trust root with one principal, who has the given roles and the one that every root must have,
// governance.
func newTrustRoot(p manifest.Principal, roles []string) *manifest.TrustRoot {
	one := manifest.TrustGroup{Threshold: 1, Of: []string{p.Name}}
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{
			Name: "local", Expires: time.Now().Add(ownTrustLife).UTC().Truncate(time.Second).Format(time.RFC3339),
		},
		Spec: manifest.TrustRootSpec{
			Version: 1, Principals: []manifest.Principal{p},
			Roles: map[string]manifest.TrustGroup{manifest.RoleGovernance: one},
		},
	}
	for _, role := range roles {
		root.Spec.Roles[role] = one
	}
	return root
}

// checkRoot refuses a trust root that could not be used.
func checkRoot(root *manifest.TrustRoot) error {
	if _, err := quorum.Compile(root); err != nil {
		return fmt.Errorf("change trust root: %w", err)
	}
	return nil
}

func writeTrust(path string, root *manifest.TrustRoot) error {
	if err := checkRoot(root); err != nil {
		return err
	}
	src, err := manifest.WriteYAML(root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return replaceFile(path, src)
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
			return a.print(shown{root}, func(w *screen) { showTrust(w, root) })
		},
	}
}

func showTrust(w *screen, root *manifest.TrustRoot) {
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
	var dry bool
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
			p, err := a.newPrincipal(c.Context(), args[0], name, operator, roles)
			if err != nil {
				return err
			}
			if file == "" {
				if file, err = a.trustPath(); err != nil {
					return err
				}
			}
			root, err := a.addPrincipal(file, p, roles, dry)
			if err != nil {
				return err
			}
			return a.print(shown{root}, func(s *screen) { showTrust(s, root) })
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the principal")
	c.Flags().StringVar(&operator, "operator", "", "who runs it (default: its name)")
	c.Flags().StringSliceVar(&roles, "role", roles, "roles to give it")
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only show what the trust root would be")
	c.Flags().StringVar(&file, "trust", "", "trust root (default: trust.yaml in the configuration directory)")
	return c
}

// newPrincipal checks what trust add was given.
func (a *app) newPrincipal(ctx context.Context, source, name, operator string, roles []string) (manifest.Principal, error) {
	if name == "" {
		return manifest.Principal{}, hinted(usage("--name is missing: who is it that you trust?"), "add --name NAME")
	}
	if len(roles) == 0 {
		return manifest.Principal{}, usage("--role is empty: for what do you trust %s?", name)
	}
	for _, role := range roles {
		if !slices.Contains(manifest.Roles(), role) {
			return manifest.Principal{}, hinted(usage("--role: there is no role %q", role), "the roles are "+strings.Join(manifest.Roles(), ", "))
		}
	}
	key, err := identity.ParsePublicKey(source)
	if err != nil && !strings.HasPrefix(source, "did:") && !strings.HasPrefix(source, "openpgp:") {
		var s identity.Signer
		if s, err = a.loadKey(ctx, source); err == nil {
			key = s.Public()
		}
	}
	if err != nil {
		return manifest.Principal{}, err
	}
	return manifest.Principal{Name: name, Operator: cmp.Or(operator, name), Keys: []string{key.String()}}, nil
}

// addPrincipal writes the trust root at path with one principal more, or a first one with that principal alone. A dry run writes nothing.
func (a *app) addPrincipal(path string, p manifest.Principal, roles []string, dry bool) (*manifest.TrustRoot, error) {
	write := writeTrust
	if dry {
		write = func(_ string, root *manifest.TrustRoot) error { return checkRoot(root) }
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		root := newTrustRoot(p, roles)
		if err := write(path, root); err != nil {
			return nil, err
		}
		if !dry {
			a.note("made the trust root %s; %s, its only principal, also has the role governance", path, p.Name)
		}
		return root, nil
	}
	root, err := a.readTrust(path)
	if err != nil {
		return nil, err
	}
	if len(root.Signatures) > 0 {
		a.note("the signatures of version %d are dropped: they do not cover version %d", root.Spec.Version, root.Spec.Version+1)
		root.Signatures = nil
	}
	root.Spec.Version++
	root.Spec.Principals = append(root.Spec.Principals, p)
	for _, role := range roles {
		g := root.Spec.Roles[role]
		g.Threshold = max(g.Threshold, 1)
		if !slices.Contains(g.Of, p.Name) {
			g.Of = append(g.Of, p.Name)
		}
		root.Spec.Roles[role] = g
	}
	return root, write(path, root)
}
