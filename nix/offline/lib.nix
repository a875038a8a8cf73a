# Functions of nixpkgs' lib: https://nixos.org/manual/nixpkgs/stable/#sec-functions-library
let
  self = {
    inherit (builtins)
      all
      any
      attrNames
      attrValues
      concatLists
      concatMap
      concatStringsSep
      elem
      elemAt
      filter
      foldl'
      fromJSON
      functionArgs
      head
      intersectAttrs
      isAttrs
      isBool
      isFunction
      isInt
      isList
      isPath
      isString
      length
      listToAttrs
      mapAttrs
      match
      replaceStrings
      stringLength
      substring
      tail
      toJSON
      ;

    importJSON = file: builtins.fromJSON (builtins.readFile file);

    literalExpression = text: text;

    # Lists.
    optional = cond: x: if cond then [ x ] else [ ];
    optionals = cond: xs: if cond then xs else [ ];
    last = xs: builtins.elemAt xs (builtins.length xs - 1);
    unique = builtins.foldl' (acc: x: if builtins.elem x acc then acc else acc ++ [ x ]) [ ];

    # Attribute sets.
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: builtins.listToAttrs (map (n: self.nameValuePair n (f n)) names);
    optionalAttrs = cond: set: if cond then set else { };
    filterAttrs =
      keep: set: self.genAttrs (builtins.filter (n: keep n set.${n}) (builtins.attrNames set)) (n: set.${n});
    mapAttrs' = f: set: builtins.listToAttrs (map (n: f n set.${n}) (builtins.attrNames set));
    mapAttrsToList = f: set: map (n: f n set.${n}) (builtins.attrNames set);
    isDerivation = x: builtins.isAttrs x && (x.type or null) == "derivation";

    # Strings.
    hasPrefix = prefix: s: builtins.substring 0 (builtins.stringLength prefix) s == prefix;
    hasSuffix =
      suffix: s:
      let
        rest = builtins.stringLength s - builtins.stringLength suffix;
      in
      rest >= 0 && builtins.substring rest (-1) s == suffix;
    removePrefix =
      prefix: s:
      if self.hasPrefix prefix s then builtins.substring (builtins.stringLength prefix) (-1) s else s;
    removeSuffix =
      suffix: s:
      if self.hasSuffix suffix s then
        builtins.substring 0 (builtins.stringLength s - builtins.stringLength suffix) s
      else
        s;
    splitString =
      separator: s:
      builtins.filter builtins.isString (
        builtins.split (builtins.replaceStrings [ "." "+" ] [ "\\." "\\+" ] separator) s
      );
    toInt =
      s:
      let
        digits = builtins.match "0*([0-9]+)" s;
      in
      if digits == null then
        throw "toInt: could not convert ${builtins.toJSON s} to int."
      else
        builtins.fromJSON (builtins.head digits);

    # Sources, packages and their descriptions.
    cleanSourceWith =
      {
        src,
        filter,
        name ? "source",
      }:
      builtins.path {
        inherit name filter;
        path = src;
      };
    getExe' = package: name: "${package}/bin/${name}";
    fetchers.proxyImpureEnvVars = [
      "http_proxy"
      "https_proxy"
      "no_proxy"
    ];
    licenses.asl20.spdxId = "Apache-2.0";
  };
in
self
