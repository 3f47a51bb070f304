-- What pandoc's LaTeX reader leaves undone for Typst.

local front = {}
local LONG = 10   -- rows of a table that may break

function Div(div)
  local class = div.classes[1]
  if class == 'notice' or class == 'keywords' then   -- printed by style.typ, above the text
    front[class] = pandoc.MetaBlocks(div.content)
    return {}
  end
  -- \begin{table}..\label{}: pandoc labels the Div around it, but Typst can cite only the figure.
  local content = div.content[1]
  if div.identifier ~= '' and #div.content == 1 and content.t == 'Table' then
    content.identifier = div.identifier
    if #content.bodies[1].body > LONG then
      local free = '#[#show figure: set block(breakable: true)'
      return { pandoc.RawBlock('typst', free), content, pandoc.RawBlock('typst', ']') }
    end
    return content
  end
end

-- Typst breaks no line after "_" nor within a word: give it the places that \allowbreak gives to LaTeX.
local function breakable(text)
  local word = ('%w'):rep(16)
  return text:gsub('_', '_\u{200b}'):gsub(word, '%0\u{200b}')
end

function Table(tbl)
  local wraps = false
  for _, column in ipairs(tbl.colspecs) do wraps = wraps or column[2] ~= nil end
  -- A \midrule within the body is lost: redraw it around a row that opens in bold.
  for _, body in ipairs(tbl.bodies) do
    for _, row in ipairs(body.body) do
      local first = row.cells[1].contents[1]
      if first and first.content[1] and first.content[1].t == 'Strong' then
        for _, cell in ipairs(row.cells) do cell.attributes['typst:stroke'] = '(y: 0.5pt)' end
      end
    end
  end
  if wraps then
    return tbl:walk { Str = function(str) return pandoc.Str((breakable(str.text))) end }
  end
  return tbl
end

function Link(link)   -- \eqref, \autoref, \cref: a Typst reference
  if link.attributes['reference-type'] then
    link.attributes['reference-type'] = 'ref'
    return link
  end
end

function Meta(meta)
  for name, content in pairs(front) do meta[name] = content end
  return meta
end
