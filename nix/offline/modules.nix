# The module system of nixpkgs, as far as this repository's module uses it: https://nixos.org/manual/nixos/stable/#sec-writing-modules
# Messages begin with the words of the real one, so that tests can look for them.
{ lib }:

let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isAttrs
    isFunction
    isList
    isString
    length
    mapAttrs
    match
    ;

  show = concatStringsSep ".";
  isA = kind: x: isAttrs x && (x._type or null) == kind;

  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };

  # What a definition says below a condition or a priority, said of each of its attributes.
  pushDown =
    def:
    let
      each = wrap: map (d: d // { value = mapAttrs (_: wrap) d.value; });
      inner = value: pushDown (def // { inherit value; });
    in
    if isA "merge" def.value then
      concatMap inner def.value.contents
    else if isA "if" def.value then
      each (self.mkIf def.value.condition) (inner def.value.content)
    else if isA "override" def.value then
      each (mkOverride def.value.priority) (inner def.value.content)
    else
      [ def ];

  # The plain values of a definition, with their priorities.
  discharge =
    def:
    let
      inner = value: discharge (def // { inherit value; });
    in
    if isA "merge" def.value then
      concatMap inner def.value.contents
    else if isA "if" def.value then
      lib.optionals def.value.condition (inner def.value.content)
    else if isA "override" def.value then
      map (d: d // { inherit (def.value) priority; }) (inner def.value.content)
    else
      [ ({ priority = 100; } // def) ];

  evalOption =
    loc: option: defs:
    let
      all = concatMap discharge defs;
      strongest = foldl' (p: d: if d.priority < p then d.priority else p) 9999 all;
      own = filter (d: d.priority == strongest) all;
      merge =
        defs:
        let
          wrong = filter (d: !option.type.check d.value) defs;
        in
        if wrong == [ ] then
          option.type.merge loc defs
        else
          throw "A definition for option `${show loc}' is not of type `${option.type.name}'. Definition in ${(head wrong).file}";
      value =
        if own != [ ] then
          merge own
        else if option ? default then
          merge [
            {
              file = "the default";
              value = option.default;
            }
          ]
        else if option.type ? empty then
          option.type.empty loc
        else
          throw "The option `${show loc}' was accessed but has no value defined. Try setting the option.";
    in
    value;

  # Every declared option below loc. decls are trees of options, defs are definitions of their attributes.
  evalTree =
    loc: decls: defs:
    let
      pushed = concatMap pushDown defs;
      declared = lib.unique (concatMap attrNames decls);
      unknown = concatMap (d: filter (n: !(elem n declared)) (attrNames d.value)) pushed;
      below = name: concatMap (d: lib.optional (d ? ${name}) d.${name}) decls;
      defsOf =
        name:
        concatMap (d: lib.optional (d.value ? ${name}) (d // { value = d.value.${name}; })) pushed;
      eval =
        name:
        let
          here = below name;
          at = loc ++ [ name ];
        in
        if !(lib.any (isA "option") here) then
          evalTree at here (defsOf name)
        else if length here > 1 then
          throw "The option `${show at}' is already declared."
        else
          evalOption at (head here) (defsOf name);
    in
    if unknown != [ ] then
      throw "The option `${show (loc ++ [ (head unknown) ])}' does not exist."
    else
      lib.genAttrs declared eval;

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      args = specialArgs // {
        inherit config;
        lib = lib // self;
      };
      call =
        f:
        let
          wanted = lib.functionArgs f;
        in
        f (if wanted == { } then args else lib.intersectAttrs wanted args);
      load =
        file: module:
        let
          isFile = builtins.isPath module || isString module;
          named = if isFile then toString module else file;
          body = if isFile then import module else module;
          m = if isFunction body then call body else body;
          meta = [
            "imports"
            "options"
            "config"
            "_file"
          ];
          long = m ? options || m ? config;
          stray = filter (n: !(elem n meta)) (attrNames m);
        in
        if long && stray != [ ] then
          throw "Module `${named}' has an unsupported attribute `${head stray}'."
        else
          concatMap (load named) (m.imports or [ ])
          ++ [
            {
              file = m._file or named;
              options = m.options or { };
              config = if long then m.config or { } else removeAttrs m meta;
            }
          ];
      loaded = concatMap (load "<unknown-file>") modules;
      config = evalTree prefix (map (m: m.options) loaded) (
        map (m: {
          inherit (m) file;
          value = m.config;
        }) loaded
      );
    in
    {
      inherit config;
    };

  # Types: whether a value fits, and what several definitions are together.
  equal =
    loc: defs:
    if lib.all (d: d.value == (head defs).value) defs then
      (head defs).value
    else
      throw "The option `${show loc}' has conflicting definition values: ${concatStringsSep ", " (map (d: d.file) defs)}";
  type = name: check: {
    inherit name check;
    merge = equal;
  };
  stringLike = x: isString x || builtins.isPath x || isAttrs x && x ? outPath;

  types = {
    anything = type "anything" (_: true);
    bool = type "boolean" builtins.isBool;
    int = type "signed integer" builtins.isInt;
    str = type "string" isString;
    lines = type "strings concatenated with \"\\n\"" isString // {
      merge = _: defs: concatStringsSep "\n" (map (d: d.value) defs);
    };
    strMatching = pattern: type "string matching the pattern ${pattern}" (x: isString x && match pattern x != null);
    enum = values: type "one of ${builtins.toJSON values}" (x: elem x values);
    ints.between = low: high: type "integer between ${toString low} and ${toString high} (both inclusive)" (
      x: builtins.isInt x && low <= x && x <= high
    );
    port = types.ints.between 0 65535;
    path = type "absolute path" (x: stringLike x && lib.hasPrefix "/" "${toString x}");
    package = type "package" (
      x: lib.isDerivation x || stringLike x && lib.hasPrefix builtins.storeDir (toString x)
    );
    nullOr =
      inner:
      type "null or ${inner.name}" (x: x == null || inner.check x)
      // {
        merge =
          loc: defs: if lib.all (d: d.value == null) defs then null else inner.merge loc defs;
      };
    either =
      a: b:
      type "${a.name} or ${b.name}" (x: a.check x || b.check x)
      // {
        merge =
          loc: defs: (if lib.all (d: a.check d.value) defs then a else b).merge loc defs;
      };
    oneOf = ts: foldl' types.either (head ts) (builtins.tail ts);
    listOf =
      inner:
      type "list of ${inner.name}" isList
      // {
        empty = _: [ ];
        merge =
          loc:
          concatMap (
            d:
            map (
              value:
              evalOption (loc ++ [ "*" ]) { type = inner; } [
                {
                  inherit (d) file;
                  inherit value;
                }
              ]
            ) d.value
          );
      };
    attrsOf =
      inner:
      type "attribute set of ${inner.name}" isAttrs
      // {
        empty = _: { };
        merge =
          loc: defs:
          let
            pushed = concatMap pushDown (map (d: { inherit (d) file value; }) defs);
            names = lib.unique (concatMap (d: attrNames d.value) pushed);
            defsOf = name: concatMap (d: lib.optional (d.value ? ${name}) (d // { value = d.value.${name}; })) pushed;
          in
          lib.genAttrs (filter (n: concatMap discharge (defsOf n) != [ ]) names) (
            n: evalOption (loc ++ [ n ]) { type = inner; } (defsOf n)
          );
      };
    submodule =
      module:
      let
        merge =
          loc: defs:
          (evalModules {
            prefix = loc;
            modules = [ module ] ++ map (d: { _file = d.file; config = d.value; }) defs;
          }).config;
      in
      type "submodule" isAttrs
      // {
        inherit merge;
        empty = loc: merge loc [ ];
      };
  };

  self = {
    inherit evalModules mkOverride types;
    mkOption = option: option // { _type = "option"; };
    mkEnableOption =
      what:
      self.mkOption {
        type = types.bool;
        default = false;
        description = "Whether to enable ${what}.";
      };
    mkPackageOption =
      pkgs: name: _:
      self.mkOption {
        type = types.package;
        default = pkgs.${name};
        description = "The ${name} package to use.";
      };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
  };
in
self
