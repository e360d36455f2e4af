-- Sends the radiographs of each study that is complete to `kneeoa pacs`: in orthanc.json, "LuaScripts": ["to_kneeoa.lua"] and
-- "DicomModalities": {"kneeoa": ["KNEEOA", "127.0.0.1", 11112]}. The reports come back into the study and make it change once
-- more; what was sent before is sent again then, and kneeoa knows it by its UID.
function OnStableStudy(study)
   for _, series in ipairs(ParseJson(RestApiGet('/studies/' .. study .. '/series'))) do
      local modality = series['MainDicomTags']['Modality']
      if modality == 'DX' or modality == 'CR' then
         RestApiPost('/modalities/kneeoa/store', DumpJson({ Resources = { series['ID'] }, Asynchronous = true }))
      end
   end
end
