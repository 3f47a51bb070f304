-- What pandoc's LaTeX reader leaves undone for HTML.

local front = {}

function Div(div)
  local class = div.classes[1]
  if class == 'notice' or class == 'summary' or class == 'keywords' then   -- they stand above the text
    front[class] = pandoc.MetaBlocks(div.content)
    return {}
  end
end

function Figure(figure)   -- a screen reader gets the caption; the picture itself says no more than that
  local caption = pandoc.utils.stringify(figure.caption.long)
  return figure:walk { Image = function(image)
    image.caption = { pandoc.Str(caption) }
    return image
  end }
end

function Meta(meta)
  for name, content in pairs(front) do meta[name] = content end
  return meta
end

return { { Div = Div, Figure = Figure }, { Meta = Meta } }
